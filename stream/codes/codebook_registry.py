"""What the topic `codebooks` says, and what a refresh worker is to do about it: pure, no Kafka, no threads.

The order of a refresh: a generation is announced without `ends`; every changed code is published; it is announced again with
`ends`; `current` names it. A reader may meet these records in any order and must come to the same end, so nothing is decided
by what came first: a generation is complete when its record has `ends`, and the generation to serve is the one that `current` names.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from models.codes.codebook import Codebook
from stream.kafka.messages import CodesAnswer, CodesRequest, CurrentCodes, DriftReport, Generation, Skipped, decode
from stream.kafka.skips import Skips
from stream.kafka.topic_reader import Places
from stream.kafka.topics import CODEBOOKS

MOST_HELD = 2  # the one that serves, and the one before it, for rollback
Record = Generation | CurrentCodes | DriftReport | CodesRequest | CodesAnswer
_KINDS: dict[str, type[Record]] = {
    "generation": Generation,
    "current": CurrentCodes,
    "drift": DriftReport,
    "request": CodesRequest,
    "answer": CodesAnswer,
}


def key_of(record: Record) -> bytes:
    """The key of a record of the topic."""
    if isinstance(record, Generation):
        return f"generation:{record.generation}".encode()
    if isinstance(record, CurrentCodes | DriftReport):
        return f"{'current' if isinstance(record, CurrentCodes) else 'drift'}:{record.bundle}".encode()
    return b"request" if isinstance(record, CodesRequest) else b"answer"


def codebook_of(record: Generation) -> Codebook:
    """The codebook that a record holds.

    Raises:
        ValueError: its centroids are not those that its name is made from.
    """
    codebook = Codebook.from_centroids(np.frombuffer(record.centroids, "<f4").reshape(record.shape))
    if codebook.generation != record.generation:
        raise ValueError(f"the centroids announced as generation {record.generation} are those of {codebook.generation}")
    return codebook


class Book:
    """The newest word of the topic under each key. One thread lets it learn, any may read: what it gives is never changed."""

    def __init__(self, skips: Skips | None = None) -> None:
        self.generations: dict[str, Generation] = {}
        self.currents: dict[str, CurrentCodes] = {}
        self.drifts: dict[str, DriftReport] = {}
        self.request: CodesRequest | None = None
        self.answer: CodesAnswer | None = None
        self._codebooks: dict[str, Codebook] = {}
        self._shapes: dict[str, tuple[int, int]] = {}  # of a bundle's own codebook: P and D
        self._skips = skips or Skips()

    def expect(self, bundle: str, own: Codebook) -> None:
        """Take only generations that fit this bundle: those of as many sub-spaces and dimensions as its own codebook."""
        self._shapes = {**self._shapes, bundle: (own.subspaces, own.dim)}

    def learn(self, key: bytes | None, value: bytes | None) -> Skipped | None:
        """Take a record; one that cannot be used changes nothing, and is answered with the reason."""
        kind, _, name = (key or b"").decode(errors="replace").partition(":")
        type_ = _KINDS.get(kind)
        if type_ is None:
            return Skipped("wrong_key", f"its key names none of: {', '.join(_KINDS)}")
        record: Record | Skipped | None = None if value is None else decode(type_, value)
        if isinstance(record, Skipped):
            return record
        if record is not None and key_of(record) != key:
            return Skipped("wrong_key", "its key names another generation, bundle or kind than its value")
        codebook = None
        if isinstance(record, Generation):
            try:
                codebook = codebook_of(record)
            except ValueError as error:
                return Skipped("wrong_shape", str(error)[:300])
        self._take(kind, name, record, codebook)
        return None

    def _take(self, kind: str, name: str, record: Record | None, codebook: Codebook | None) -> None:
        if kind == "generation":
            self._codebooks = _with(self._codebooks, name, codebook)
            self.generations = _with(self.generations, name, record)
        elif kind == "current":
            self.currents = _with(self.currents, name, record)
        elif kind == "drift":
            self.drifts = _with(self.drifts, name, record)
        elif kind == "request" and (record is None or isinstance(record, CodesRequest)):
            self.request = record
        elif kind == "answer" and (record is None or isinstance(record, CodesAnswer)):
            self.answer = record

    def apply(self, records: Sequence[Any], places: Places) -> None:
        """Take what a tail brings; a record that cannot be used is skipped and counted."""
        for record in records:
            skipped = self.learn(record.key, record.value)
            if skipped is not None:
                self._skips.add(record, CODEBOOKS, skipped)

    def codebook(self, generation: str) -> Codebook:
        """The codebook of an announced generation.

        Raises:
            KeyError: it is not announced, or no longer.
        """
        return self._codebooks[generation]

    def used(self, bundle: str, own: Codebook) -> Codebook:
        """The codebook to encode a bundle's items with now: its own until another one is complete and named."""
        generation = self.current(bundle, own.generation)
        return own if generation == own.generation else self._codebooks[generation]

    def of(self, bundle: str) -> list[Generation]:
        """The generations announced for a bundle, oldest first."""
        return sorted(
            (g for g in self.generations.values() if g.bundle == bundle and self._fits(g)), key=lambda g: (g.started_ms, g.generation)
        )

    def complete(self, bundle: str, generation: str) -> Generation | None:
        """The record of a generation of which all changed codes are published, None for any other."""
        found = self.generations.get(generation)
        return found if found is not None and found.bundle == bundle and found.ends is not None and self._fits(found) else None

    def settled(self, bundle: str, own: str) -> bool:
        """Whether the generation that is named for a bundle may be served; false only while its own record is still to come."""
        said = self.currents.get(bundle)
        return said is None or said.generation == own or self.complete(bundle, said.generation) is not None

    def current(self, bundle: str, own: str) -> str:
        """The generation that a bundle is to encode with and serve: its `own` until another one is complete and named."""
        said = self.currents.get(bundle)
        return said.generation if said is not None and self.complete(bundle, said.generation) else own

    def previous(self, bundle: str, own: str) -> str | None:
        """The generation to go back to; None where there is none."""
        said = self.currents.get(bundle)
        if said is None or said.generation != self.current(bundle, own):
            return None
        found = said.previous if said.previous == own or self.complete(bundle, said.previous) else own
        return found if found != said.generation else None

    def coming(self, bundle: str, own: str) -> Generation | None:
        """The generation announced last, whose codes are being published or not yet in use; None where that is the current one."""
        said = self.currents.get(bundle)
        since = said.since_ms if said is not None else 0
        later = [g for g in self.of(bundle) if g.started_ms >= since and g.generation != self.current(bundle, own)]
        return later[-1] if later else None

    def _fits(self, record: Generation) -> bool:
        subspaces, _, width = record.shape
        return self._shapes.get(record.bundle, (subspaces, subspaces * width)) == (subspaces, subspaces * width)


def _with(old: dict[str, Any], name: str, record: Any) -> dict[str, Any]:
    return {**{key: value for key, value in old.items() if key != name}, **({} if record is None else {name: record})}


class Step(NamedTuple):
    """What a worker does next about a generation."""

    action: Literal["hold", "serve", "drop"]
    generation: str


def next_step(book: Book, bundle: str, own: str, held: Collection[str], serving: str, passed: Callable[[Generation], bool]) -> Step | None:
    """The next step of an index that holds codes of `held` and serves those of `serving`; None: all is as it should be.

    `passed` says whether the worker has read all changed codes of a complete generation. Never more than two are held, what
    serves is never dropped, and only a complete generation (or the bundle's own) is held anew or served.
    """
    if not book.settled(bundle, own):
        return None
    wanted, previous = book.current(bundle, own), book.previous(bundle, own)
    if wanted == serving:
        surplus = [g for g in held if g not in (wanted, previous)]
        return Step("drop", min(surplus)) if surplus else None
    if wanted in held:
        return Step("serve", wanted)
    record = book.complete(bundle, wanted)
    if record is not None and wanted != own and not passed(record):
        return None
    if len(held) >= MOST_HELD:
        others = [g for g in held if g != serving]
        return Step("drop", min(others, key=lambda g: (g == previous, g)))
    return Step("hold", wanted)

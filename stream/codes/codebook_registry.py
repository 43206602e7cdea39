"""The state of the topic `codebooks`, and the next step of an index that follows it. Pure: no Kafka, no threads.

A refresh publishes in this order: the codebook's record without `ends`; every changed code; the record again with `ends`; `current`, which
activates it. A reader may meet these records in any order and must reach the same state, so nothing depends on the order: a codebook is
complete when its record has `ends`, and the codebook to serve is the one that `current` names.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from models.codes.codebook import Codebook
from stream.kafka.messages import CodebookRecord, CodesAnswer, CodesRequest, CurrentCodes, DriftReport, Skipped, Skips, decode
from stream.kafka.topic_reader import Offsets
from stream.kafka.topics import CODEBOOKS

MOST_HELD = 2  # the codebook that serves, and the previous one, for rollback
Record = CodebookRecord | CurrentCodes | DriftReport | CodesRequest | CodesAnswer
_KINDS: dict[str, type[Record]] = {
    "codebook": CodebookRecord,
    "current": CurrentCodes,
    "drift": DriftReport,
    "request": CodesRequest,
    "answer": CodesAnswer,
}


def key_of(record: Record) -> bytes:
    """The key of a record of the topic."""
    if isinstance(record, CodebookRecord):
        return key_of_codebook(record.codebook)
    if isinstance(record, CurrentCodes | DriftReport):
        return f"{'current' if isinstance(record, CurrentCodes) else 'drift'}:{record.bundle}".encode()
    return b"request" if isinstance(record, CodesRequest) else b"answer"


def key_of_codebook(codebook: str) -> bytes:
    """The key of a codebook's record."""
    return f"codebook:{codebook}".encode()


def codebook_of(record: CodebookRecord) -> Codebook:
    """The codebook of a record.

    Raises:
        ValueError: its centroids are not those that its name was computed from.
    """
    codebook = Codebook.from_centroids(np.frombuffer(record.centroids, "<f4").reshape(record.shape))
    if codebook.generation != record.codebook:
        raise ValueError(f"the centroids announced as codebook {record.codebook} are those of {codebook.generation}")
    return codebook


class Announced(NamedTuple):
    """A codebook and its record. One value, so that a reader in another thread sees both or neither."""

    record: CodebookRecord
    codebook: Codebook


class CodebookRegistry:
    """The newest record of each key. One thread applies records, any may read: what is returned is never changed.

    Codebooks are named by their generation, a hash of their centroids. `own` is always the name of the bundle's own codebook.
    """

    def __init__(self, skips: Skips | None = None) -> None:
        self.announced: dict[str, Announced] = {}
        self.currents: dict[str, CurrentCodes] = {}
        self.drifts: dict[str, DriftReport] = {}
        self.request: CodesRequest | None = None
        self.answer: CodesAnswer | None = None
        self._shapes: dict[str, tuple[int, int]] = {}  # of a bundle's own codebook: P and D
        self._skips = skips or Skips()

    def expect(self, bundle: str, own: Codebook) -> None:
        """Accept only codebooks that fit this bundle: as many sub-spaces and dimensions as its own codebook."""
        self._shapes = {**self._shapes, bundle: (own.subspaces, own.dim)}

    def apply(self, records: Sequence[Any], offsets: Offsets) -> None:
        """Apply consumer records; one that cannot be used is skipped and counted."""
        for record in records:
            skipped = self.apply_record(record.key, record.value)
            if skipped is not None:
                self._skips.add(record, CODEBOOKS, skipped)

    def apply_record(self, key: bytes | None, value: bytes | None) -> Skipped | None:
        """Apply a record. One that cannot be used changes nothing; the reason is returned."""
        kind, _, name = (key or b"").decode(errors="replace").partition(":")
        type_ = _KINDS.get(kind)
        if type_ is None:
            return Skipped("wrong_key", f"its key names none of: {', '.join(_KINDS)}")
        record: Record | Skipped | None = None if value is None else decode(type_, value)
        if isinstance(record, Skipped):
            return record
        if record is not None and key_of(record) != key:
            return Skipped("wrong_key", "its key names another codebook, bundle or kind than its value")
        try:
            self._store(kind, name, record)
        except ValueError as error:
            return Skipped("wrong_shape", str(error)[:300])
        return None

    def used(self, bundle: str, own: Codebook) -> Codebook:
        """The codebook to encode a bundle's items with: its own until another one is complete and activated."""
        name = self.current(bundle, own.generation)
        found = self.complete(bundle, name)
        return own if name == own.generation or found is None else found.codebook

    def of(self, bundle: str) -> list[CodebookRecord]:
        """The records of the codebooks announced for a bundle, oldest first."""
        found = [record for record, _ in self.announced.values() if record.bundle == bundle and self._fits(record)]
        return sorted(found, key=lambda record: (record.started_ms, record.codebook))

    def complete(self, bundle: str, name: str) -> Announced | None:
        """A codebook of this name whose changed codes are all published; None for any other."""
        found = self.announced.get(name)
        if found is None or found.record.bundle != bundle or found.record.ends is None or not self._fits(found.record):
            return None
        return found

    def settled(self, bundle: str, own: str) -> bool:
        """Whether the codebook activated for a bundle may be served; false only while its own record is still to come."""
        current = self.currents.get(bundle)
        return current is None or current.codebook == own or self.complete(bundle, current.codebook) is not None

    def current(self, bundle: str, own: str) -> str:
        """The codebook to encode a bundle's items with and to serve: `own` until another one is complete and activated."""
        current = self.currents.get(bundle)
        return current.codebook if current is not None and self.complete(bundle, current.codebook) else own

    def previous(self, bundle: str, own: str) -> str | None:
        """The codebook that a rollback returns to, if any."""
        current = self.currents.get(bundle)
        if current is None or current.codebook != self.current(bundle, own):
            return None
        found = current.previous if current.previous == own or self.complete(bundle, current.previous) else own
        return found if found != current.codebook else None

    def pending(self, bundle: str, own: str) -> Announced | None:
        """The codebook announced last, if its codes are still being published or it is not activated yet."""
        current = self.currents.get(bundle)
        since = current.since_ms if current is not None else 0
        later = [record for record in self.of(bundle) if record.started_ms >= since and record.codebook != self.current(bundle, own)]
        return self.announced.get(later[-1].codebook) if later else None

    def _store(self, kind: str, name: str, record: Record | None) -> None:
        if kind == "codebook":
            entry = Announced(record, codebook_of(record)) if isinstance(record, CodebookRecord) else None
            self.announced = _with(self.announced, name, entry)
        elif kind == "current":
            self.currents = _with(self.currents, name, record)
        elif kind == "drift":
            self.drifts = _with(self.drifts, name, record)
        elif kind == "request" and (record is None or isinstance(record, CodesRequest)):
            self.request = record
        elif kind == "answer" and (record is None or isinstance(record, CodesAnswer)):
            self.answer = record

    def _fits(self, record: CodebookRecord) -> bool:
        subspaces, _, width = record.shape
        return self._shapes.get(record.bundle, (subspaces, subspaces * width)) == (subspaces, subspaces * width)


def _with(old: dict[str, Any], name: str, entry: Any) -> dict[str, Any]:
    return {**{key: value for key, value in old.items() if key != name}, **({} if entry is None else {name: entry})}


class SwapStep(NamedTuple):
    """What an index does next about a codebook."""

    action: Literal["hold", "serve", "drop"]
    codebook: str


def next_step(
    registry: CodebookRegistry, bundle: str, own: str, held: Collection[str], serving: str, passed: Callable[[CodebookRecord], bool]
) -> SwapStep | None:
    """The next step of an index that holds codes of the codebooks `held` and serves those of `serving`; None: nothing is to be done.

    `passed` tells whether the worker has read all changed codes of a complete codebook. At most two are held, what serves is never
    dropped, and only a complete codebook (or the bundle's own) is newly held or served.
    """
    if not registry.settled(bundle, own):
        return None
    wanted, previous = registry.current(bundle, own), registry.previous(bundle, own)
    if wanted == serving:
        surplus = [name for name in held if name not in (wanted, previous)]
        return SwapStep("drop", min(surplus)) if surplus else None
    if wanted in held:
        return SwapStep("serve", wanted)
    announced = registry.complete(bundle, wanted)
    if announced is not None and wanted != own and not passed(announced.record):
        return None
    if len(held) >= MOST_HELD:
        others = [name for name in held if name != serving]
        return SwapStep("drop", min(others, key=lambda name: (name == previous, name)))
    return SwapStep("hold", wanted)

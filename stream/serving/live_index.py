"""What a refresh worker serves with: a recommender, and an index that follows the topics of item codes and of codebooks.

Vectors of two bundles are never mixed: what is of another bundle is left out. Codes of the same vectors under another codebook
are made beside those in use, and swapped in by the index at once.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import Protocol

import numpy as np

from models.bundle import load
from models.index import Delete, ItemIndex, Sizes, Upsert, bytes_per_item
from models.serving.recommender import Recommender
from stream.codes.code_reader import Word, code_tail, newest
from stream.codes.codebook_registry import Book, next_step
from stream.codes.pending_generation import Coming
from stream.codes.validation import Shapes, fault_of
from stream.kafka.connection import Connection
from stream.kafka.messages import Generation, ItemCode, Recode, digest
from stream.kafka.skips import Skips
from stream.kafka.topic_reader import Places
from stream.kafka.topics import ITEM_CODES
from stream.pipelines.refresh import Serving
from stream.serving.snapshot import Saved, Snapshots

log = logging.getLogger(__name__)

CATCH_UP_S = 120.0
LOOK_S = 0.05  # between looks at what the topic of codebooks says
UPKEEP_S = 0.5  # between looks at whether there is anything to compact or to save


class IndexObserver(Protocol):
    """The events of an index that follows item codes. Methods may be called from several threads."""

    def items(self, items: int, newest_ts: int, sent_ms: Sequence[int]) -> None:
        """Items in the index, event time (ms) of the newest, and when (ms) each was sent that came since the start."""

    def codebooks(self, serving: str, held: Sequence[str]) -> None:
        """The codebook that serves, and all those of which the index holds codes."""

    def left_out(self, codes: int) -> None:
        """This many codes belong to another bundle and were left out."""

    def encoded_here(self, codes: int) -> None:
        """This many items came with a code of a codebook that is not held; they were encoded here."""

    def skipped(self, topic: str, reason: str) -> None:
        """A record of an internal topic (without the prefix) cannot be used."""

    def upkeep(self, what: str, seconds: float) -> None:
        """The time of a compaction (`compact`), a snapshot (`save`), or of codes under another codebook (`hold`)."""


class LiveServing:
    """A recommender and an index that follows the topics `item-codes` and `codebooks`. `lock` is held by whoever reads or changes
    the recommender.

    `book` is what the topic `codebooks` says, kept up by its tail. With `snapshots` it begins with the index saved last.
    """

    def __init__(
        self,
        directory: Path,
        device: str,
        connection: Connection,
        topic: str,
        book: Book,
        observer: IndexObserver,
        snapshots: Snapshots | None = None,
    ) -> None:
        bundle = load(directory, device)
        recommender = Recommender(bundle, device)
        recommender.warm_up()
        self.bundle, self.own = bundle.generation, bundle.codebook.generation
        self._bundle_codebook = bundle.codebook
        book.expect(self.bundle, bundle.codebook)
        self._book, self._observer, self._snapshots = book, observer, snapshots
        saved = snapshots.load(self.bundle, connection, topic) if snapshots is not None else None
        if saved is not None and (saved.items.dim, saved.items.codebook.dim) != (bundle.manifest.dim, bundle.codebook.dim):
            log.warning("the snapshot of the index is of other dimensions than bundle %s and is not used", self.bundle)
            saved = None
        index = saved.items if saved is not None else bundle.index()
        if saved is not None:
            view = index.look()
            numbers = view.everything()
            recommender.remember(view.names(numbers), view.vectors(numbers))
        self.lock = Lock()
        self.serving = Serving(recommender, index)
        self.places: Places = {} if saved is None else dict(saved.places)
        self._saved = Saved(index, self.places, index.held) if saved is not None else None
        self._applying = Lock()  # held for the time of a batch: places, index and what is coming agree
        self._coming: Coming | None = None
        self._seen_faults: set[str] = set()  # each kind is logged once
        self._touched: dict[str, Upsert] | None = None  # what came while codes of another generation are made
        self._stopping = Event()
        self._failure: BaseException | None = None
        self.tail = code_tail(connection, topic, self.apply, self.places, Skips(observer.skipped))
        self._threads = [Thread(target=self._repeat, args=each, daemon=True, name=each[0].__name__) for each in self._tasks()]

    @property
    def index(self) -> ItemIndex:
        """The index of this bundle's items."""
        return self.serving.index

    @property
    def failure(self) -> BaseException | None:
        """What ended one of the threads, None while they run."""
        return self.tail.failure or self._failure

    def start(self, stopping: Event) -> None:
        """Read the topic to what is its end now, under the generation that is current, and go on in threads.

        Raises:
            TimeoutError: the topic was not read in time.
        """
        try:
            while self.follow(started=False):
                pass
            self.tail.start()
            self.tail.catch_up(stopping, CATCH_UP_S)
        except BaseException:
            self.stop(save=False)
            raise
        self._tell()
        for thread in self._threads:
            thread.start()

    def stop(self, save: bool = True) -> None:
        """End the threads, and with `save` write what changed since the last snapshot."""
        self._stopping.set()
        self.tail.stop()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=10)
        if save and self.tail.caught_up:
            self.save()

    def apply(self, words: Sequence[Word], places: Places) -> None:
        """Bring codes of this bundle into the index, and take out what is gone. Called by the tail."""
        items, recodes = newest(words)
        codes = [code for code in items.values() if code is not None]
        ours = [code for code in codes if code.generation == self.bundle]
        with self._applying:
            shapes = self._shapes()
            mine = [code for code in ours if self._fits(code, shapes)]
            upserts = self._upserts(mine)
            gone = [Delete(item) for item, code in items.items() if code is None]
            self.index.apply([*gone, *upserts])
            self._note(upserts, gone, self._matching(recodes))
            self.places = places
        if mine:
            with self.lock:
                vectors = np.stack([np.frombuffer(code.vector, "<f4") for code in mine])
                self.serving.recommender.remember([code.item_id for code in mine], vectors)
        sent = [code.sent_ms for code in mine if code.sent_ms] if self.tail.caught_up else []
        if strangers := len(codes) - len(ours):
            self._observer.left_out(strangers)
        if words:
            self._observer.items(len(self.index), max((code.ts for code in mine), default=0), sent)

    def follow(self, started: bool = True) -> bool:
        """Do one step of what the topic of codebooks asks for; False where there is nothing to do.

        Before the start a generation need not have been read: every code is made anew from its vector.
        """
        self._expect()

        def passed(record: Generation) -> bool:
            return not started or all(self.places.get(at, -1) >= end for at, end in (record.ends or {}).items())

        step = next_step(self._book, self.bundle, self.own, self.index.held, self.index.generation, passed)
        if step is None:
            return False
        began = monotonic()
        if step.action == "hold":
            self._hold(step.generation)
            self._observer.upkeep("hold", monotonic() - began)
        elif step.action == "serve":
            self.index.serve(step.generation)
        else:
            with self._applying:  # no batch may be on its way with codes of it
                self.index.drop(step.generation)
        log.info("codes of generation %s: %s, %.2f s", step.generation, step.action, monotonic() - began)
        self._tell()
        return True

    def save(self) -> None:
        """Write a snapshot, if anything changed since the last one; a failure is logged, the next one may do better."""
        if self._snapshots is None:
            return
        with self._applying:
            now = Saved(self.index, dict(self.places), self.index.held)
        if self._saved is not None and (now.places, now.held) == (self._saved.places, self._saved.held):
            return
        began = monotonic()
        if self._snapshots.save(self.bundle, now):
            self._saved = now
            self._observer.upkeep("save", monotonic() - began)

    def compact(self) -> None:
        """Fold what changed into the base of the index, if it is time."""
        if self.index.compaction_due:
            began = monotonic()
            self.index.compact()
            self._observer.upkeep("compact", monotonic() - began)

    def bytes_per_item(self) -> float:
        """Memory of an item in the index, with the codes of every generation held."""
        index, codebook = self.index, self.index.codebook
        parts = 0 if codebook.dim == index.dim else codebook.dim
        exact = len(index) <= Sizes().exact
        return sum(bytes_per_item(index.dim, codebook.subspaces, len(index.held), parts, exact).values())

    def _upserts(self, codes: Sequence[ItemCode]) -> list[Upsert]:
        """Codes under a codebook that is not held are made here, from what they stand for."""
        held, serving = self.index.held, self.index.codebook
        parts = [np.frombuffer(code.parts, "<f4") if code.parts else None for code in codes]
        vectors = [np.frombuffer(code.vector, "<f4") for code in codes]
        strange = [n for n, code in enumerate(codes) if (code.codebook or self.own) not in held]
        made: Sequence[np.ndarray] = serving.encode(np.stack([_coded(vectors[n], parts[n]) for n in strange])) if strange else []  # type: ignore[assignment]
        anew = dict(zip(strange, made, strict=True))
        if strange:
            self._observer.encoded_here(len(strange))
        return [
            Upsert(
                item=code.item_id,
                category=code.category_id,
                vector=vectors[n],
                code=anew[n] if n in anew else np.frombuffer(code.code, np.uint8),
                generation=serving.generation if n in anew else code.codebook or self.own,
                price=code.price,
                available=code.available,
                parts=parts[n],
            )
            for n, code in enumerate(codes)
        ]

    def _fits(self, code: ItemCode, shapes: Shapes) -> bool:
        """Whether the index takes it. One invalid code must end neither the tail nor the worker."""
        fault = fault_of(code, shapes)
        if fault is not None:
            self._observer.skipped(ITEM_CODES.name, fault)
            if fault not in self._seen_faults:
                self._seen_faults.add(fault)
                log.error("the code of item %r does not fit bundle %s and is skipped (%s)", code.item_id, self.bundle, fault)
        return fault is None

    def _shapes(self) -> Shapes:
        index = self.index
        return Shapes(index.dim, index.codebook.dim if index.coded_apart else None, index.codebooks, self.own)

    def _matching(self, recodes: Mapping[str, Recode]) -> dict[str, Recode]:
        """Those made for the vector that the index holds of the item."""
        if self._coming is None or not recodes:
            return {}
        coming = self._coming
        names = [name for name, recode in recodes.items() if coming.accepts(recode)]
        view = self.index.look()
        numbers = view.numbers(names)
        known = np.flatnonzero(numbers >= 0)
        vectors = view.vectors(numbers[known])
        pairs = [(names[at], vector) for at, vector in zip(known.tolist(), vectors, strict=True)]
        return {name: recodes[name] for name, vector in pairs if recodes[name].of == digest(vector.astype("<f4").tobytes())}

    def _note(self, upserts: Sequence[Upsert], gone: Sequence[Delete], recodes: Mapping[str, Recode]) -> None:
        if self._coming is not None:
            self._coming.take(upserts, [delete.item for delete in gone], recodes)
        if self._touched is not None:
            self._touched.update({upsert.item: upsert for upsert in upserts})
            for delete in gone:
                self._touched.pop(delete.item, None)

    def _expect(self) -> None:
        """Gather the codes of a generation from its announcement on."""
        record = self._book.coming(self.bundle, self.own)
        with self._applying:
            old = self._coming
            if record is None or record.generation in self.index.held or (old is not None and old.is_of(record)):
                return
            self._coming = Coming(record, self._book.codebook(record.generation), self.places)

    def _hold(self, generation: str) -> None:
        record = self._book.complete(self.bundle, generation)
        codebook = self._bundle_codebook if generation == self.own else self._book.codebook(generation)
        with self._applying:
            coming, self._coming = self._coming, None
            given = coming if coming is not None and record is not None and coming.whole(record) else None
            if given is not None and record is not None and record.parent in self.index.held:
                self._touched = {}
            else:
                given = None
        if given is None or record is None:
            self.index.hold(codebook)
            return
        self.index.hold(codebook, given.changed, record.parent)
        with self._applying:
            touched, self._touched = list((self._touched or {}).values()), None
            if touched:  # came between the look at `changed` and that of the index: their code of the parent says nothing
                codes = codebook.encode(np.stack([_coded(upsert.vector, upsert.parts) for upsert in touched]))
                self.index.apply([u._replace(code=c, generation=generation) for u, c in zip(touched, codes, strict=True)])

    def _tell(self) -> None:
        self._observer.codebooks(self.index.generation, self.index.held)

    def _tasks(self) -> list[tuple[Callable[[], object], float]]:
        every_s = self._snapshots.every_s if self._snapshots is not None else float("inf")
        saved_at = monotonic()

        def upkeep() -> None:
            nonlocal saved_at
            self.compact()
            if monotonic() - saved_at >= every_s:
                saved_at = monotonic()
                self.save()

        return [(self.follow, LOOK_S), (upkeep, UPKEEP_S)]

    def _repeat(self, task: Callable[[], object], wait_s: float) -> None:
        try:
            while not self._stopping.wait(wait_s):
                task()
        except Exception as error:
            self._failure = error
            log.exception("what keeps the index ended")


def _coded(vector: np.ndarray, parts: np.ndarray | None) -> np.ndarray:
    """What an item's code stands for (D,)."""
    return vector if parts is None else parts

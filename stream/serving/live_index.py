"""A recommender and an index of its bundle's items, which follows the topics of item codes and codebooks.

Vectors of two bundles are never mixed: those of another bundle are left out. Codes of the same vectors under another codebook are prepared
next to those in use, and swapped in by the index at once.
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
from models.serving.retriever import Serving
from stream.codes.codebook_registry import CodebookRegistry, next_step
from stream.codes.readers import CodeRecord, code_reader, newest
from stream.codes.validation import Shapes, fault_of
from stream.kafka.connection import Connection
from stream.kafka.messages import CodebookRecord, ItemCode, Recode, Skips
from stream.kafka.topic_reader import Offsets
from stream.kafka.topics import ITEM_CODES
from stream.serving.pending_generation import PendingGeneration, quantised
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


class LiveIndex:
    """A recommender and an index that follows `item-codes` and `codebooks`.

    `registry` follows the topic `codebooks`. With `snapshots` the index begins with the last one saved.
    """

    def __init__(
        self,
        directory: Path,
        device: str,
        connection: Connection,
        topic: str,
        registry: CodebookRegistry,
        observer: IndexObserver,
        snapshots: Snapshots | None = None,
    ) -> None:
        bundle = load(directory, device)
        recommender = Recommender(bundle, device)
        recommender.warm_up()
        self.bundle, self.own = bundle.generation, bundle.codebook.generation
        self._bundle_codebook = bundle.codebook
        registry.expect(self.bundle, bundle.codebook)
        self._registry, self._observer, self._snapshots = registry, observer, snapshots
        saved = snapshots.load(self.bundle, connection, topic) if snapshots is not None else None
        if saved is not None and (saved.items.dim, saved.items.codebook.dim) != (bundle.manifest.dim, bundle.codebook.dim):
            log.warning("the snapshot of the index is of other dimensions than bundle %s and is not used", self.bundle)
            saved = None
        index = saved.items if saved is not None else bundle.index()
        if saved is not None:
            view = index.look()
            numbers = view.everything()
            recommender.remember(view.names(numbers), view.vectors(numbers))
        self.serving = Serving(recommender, index)
        self.offsets: Offsets = {} if saved is None else dict(saved.offsets)
        self._saved = Saved(index, self.offsets, index.held) if saved is not None else None
        self._applying = Lock()  # held for the time of a batch: offsets, index and pending codes agree
        self._pending: PendingGeneration | None = None
        self._seen_faults: set[str] = set()  # each kind is logged once
        self._touched: dict[str, Upsert] | None = None  # items changed while codes under another codebook are prepared
        self._stopping = Event()
        self._failure: BaseException | None = None
        self.reader = code_reader(connection, topic, self.apply, self.offsets, Skips(observer.skipped))
        self._threads = [Thread(target=self._repeat, args=each, daemon=True, name=each[0].__name__) for each in self._tasks()]

    @property
    def index(self) -> ItemIndex:
        """The index of this bundle's items."""
        return self.serving.index

    @property
    def failure(self) -> BaseException | None:
        """What ended one of the threads, None while they run."""
        return self.reader.failure or self._failure

    def start(self, stopping: Event) -> None:
        """Read the topic up to its present end, under the current codebook, and follow it in threads.

        Raises:
            TimeoutError: the topic was not read in time.
        """
        try:
            while self.follow(started=False):
                pass
            self.reader.start()
            self.reader.catch_up(stopping, CATCH_UP_S)
        except BaseException:
            self.stop(save=False)
            raise
        self._report()
        for thread in self._threads:
            thread.start()

    def stop(self, save: bool = True) -> None:
        """End the threads, and with `save` write what changed since the last snapshot."""
        self._stopping.set()
        self.reader.stop()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=10)
        if save and self.reader.caught_up:
            self.save()

    def apply(self, records: Sequence[CodeRecord], offsets: Offsets) -> None:
        """Apply records of `item-codes`. Called by the reader."""
        items, recodes = newest(records)
        codes = [code for code in items.values() if code is not None]
        of_bundle = [code for code in codes if code.bundle == self.bundle]
        with self._applying:
            shapes = self._shapes()
            valid = [code for code in of_bundle if self._fits(code, shapes)]
            upserts = self._upserts(valid)
            deletes = [Delete(item) for item, code in items.items() if code is None]
            self.index.apply([*deletes, *upserts])
            self._gather(upserts, deletes, recodes)
            self.offsets = offsets
        recommender = self.serving.recommender
        recommender.forget(delete.item for delete in deletes)
        if valid:
            recommender.remember([code.item_id for code in valid], np.stack([np.frombuffer(code.vector, "<f4") for code in valid]))
        sent = [code.sent_ms for code in valid if code.sent_ms] if self.reader.caught_up else []
        if left_out := len(codes) - len(of_bundle):
            self._observer.left_out(left_out)
        if records:
            self._observer.items(len(self.index), max((code.ts for code in valid), default=0), sent)

    def follow(self, started: bool = True) -> bool:
        """Do one step towards the state of the topic `codebooks`; False where there is nothing to do.

        Before the start no recodes need have been read: every code is computed from its vector.
        """
        self._expect()

        def passed(record: CodebookRecord) -> bool:
            return not started or all(self.offsets.get(at, -1) >= end for at, end in (record.ends or {}).items())

        step = next_step(self._registry, self.bundle, self.own, self.index.held, self.index.generation, passed)
        if step is None:
            return False
        began = monotonic()
        if step.action == "hold":
            self._hold(step.codebook)
            self._observer.upkeep("hold", monotonic() - began)
        elif step.action == "serve":
            self.index.serve(step.codebook)
        else:
            with self._applying:  # no batch may be in progress with codes of it
                self.index.drop(step.codebook)
        log.info("codes of codebook %s: %s, %.2f s", step.codebook, step.action, monotonic() - began)
        self._report()
        return True

    def save(self) -> None:
        """Write a snapshot, if anything changed since the last one. A failure is logged; the next one may succeed."""
        if self._snapshots is None:
            return
        with self._applying:
            now = Saved(self.index, dict(self.offsets), self.index.held)
        if self._saved is not None and (now.offsets, now.held) == (self._saved.offsets, self._saved.held):
            return
        began = monotonic()
        if self._snapshots.save(self.bundle, now):
            self._saved = now
            self._observer.upkeep("save", monotonic() - began)

    def compact(self) -> None:
        """Merge the changes into the base of the index, if it is time."""
        if self.index.compaction_due:
            began = monotonic()
            self.index.compact()
            self._observer.upkeep("compact", monotonic() - began)

    def bytes_per_item(self) -> float:
        """Memory of an item in the index, with the codes of every codebook held."""
        index, codebook = self.index, self.index.codebook
        parts = 0 if codebook.dim == index.dim else codebook.dim
        exact = len(index) <= Sizes().exact
        return sum(bytes_per_item(index.dim, codebook.subspaces, len(index.held), parts, exact).values())

    def _upserts(self, codes: Sequence[ItemCode]) -> list[Upsert]:
        """Changes of the index. A code of a codebook that is not held is computed here."""
        held, serving = self.index.held, self.index.codebook
        upserts = [
            Upsert(
                item=code.item_id,
                category=code.category_id,
                vector=np.frombuffer(code.vector, "<f4"),
                code=np.frombuffer(code.code, np.uint8),
                generation=code.codebook or self.own,
                price=code.price,
                available=code.available,
                parts=np.frombuffer(code.parts, "<f4") if code.parts else None,
            )
            for code in codes
        ]
        foreign = [n for n, upsert in enumerate(upserts) if upsert.generation not in held]
        if foreign:
            made = serving.encode(quantised([upserts[n] for n in foreign]))
            for n, code in zip(foreign, made, strict=True):
                upserts[n] = upserts[n]._replace(code=code, generation=serving.generation)
            self._observer.encoded_here(len(foreign))
        return upserts

    def _fits(self, code: ItemCode, shapes: Shapes) -> bool:
        """Whether the index can take it. An invalid code must end neither the reader nor the worker."""
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

    def _gather(self, upserts: Sequence[Upsert], deletes: Sequence[Delete], recodes: Mapping[str, Recode]) -> None:
        """Note what a batch changed for the codebook that is pending or being prepared."""
        if self._pending is not None:
            matching = self._pending.matching(recodes, self.index.look()) if recodes else {}
            self._pending.apply(upserts, [delete.item for delete in deletes], matching)
        if self._touched is not None:
            self._touched.update({upsert.item: upsert for upsert in upserts})
            for delete in deletes:
                self._touched.pop(delete.item, None)

    def _expect(self) -> None:
        """Gather the codes of a codebook from its announcement on."""
        announced = self._registry.pending(self.bundle, self.own)
        with self._applying:
            old = self._pending
            if announced is None or announced.record.codebook in self.index.held:
                return
            if old is None or not old.belongs_to(announced.record):
                self._pending = PendingGeneration(announced, self.offsets)

    def _hold(self, name: str) -> None:
        """Prepare codes under another codebook: from the gathered ones if none was missed, else from the vectors."""
        announced = self._registry.complete(self.bundle, name)
        if announced is None and name != self.own:
            return  # retracted since the step was chosen
        codebook = self._bundle_codebook if announced is None or name == self.own else announced.codebook
        record = None if announced is None else announced.record
        with self._applying:
            pending, self._pending = self._pending, None
            gathered = pending if pending is not None and record is not None and pending.complete(record) else None
            if gathered is not None and record is not None and record.parent in self.index.held:
                self._touched = {}
            else:
                gathered = None
        if gathered is None or record is None:
            self.index.hold(codebook)
            return
        self.index.hold(codebook, gathered.changed, record.parent)
        with self._applying:
            touched, self._touched = list((self._touched or {}).values()), None
            if touched:  # changed after `changed` was read and before the index was: their code under the parent is not theirs
                codes = codebook.encode(quantised(touched))
                self.index.apply([u._replace(code=c, generation=name) for u, c in zip(touched, codes, strict=True)])

    def _report(self) -> None:
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
            log.exception("a thread of the index failed")

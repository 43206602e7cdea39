"""The keeper of codes: measures how far item codes drifted from their vectors, and refreshes them. It knows no Kafka and no threads.

A refresh, in the order that readers rely on (stream.codes.codebook_registry): 1 train, 2 announce the generation, 3 compare and publish a
Recode of every item whose code changed, 4 announce it again with `ends`, 5 name it as current, 6 take back what nobody may
want again. A failure before 5 leaves a generation that nobody serves; the next refresh takes it back.
"""

import logging
from collections.abc import Callable, Sequence
from threading import Lock
from time import monotonic
from typing import Literal

import msgspec
import numpy as np

from models.codes.codebook import TRAINING_VECTORS, Codebook, Codes, Floats
from models.codes.drift import Baseline, Decision, Drift, Policy, Reservoir, Sample, measure, refresh
from stream.codes.catalogue_snapshot import Ledger
from stream.codes.code_reader import Word
from stream.codes.codebook_publisher import Outside, Pace, State, Topics, Voice, figures
from stream.codes.codebook_registry import Book
from stream.errors import CodesRequestError, PublishError
from stream.kafka.messages import (
    RECODE,
    CodesRequest,
    CurrentCodes,
    DriftReport,
    Generation,
    How,
)
from stream.kafka.producer import Outgoing
from stream.kafka.topic_reader import Places

log = logging.getLogger(__name__)

SEED = 1


class Keeper:
    """Keeps the codes of one bundle. `hear` is called by the tail of `item-codes`, `tick` every now and then by another thread."""

    def __init__(
        self,
        ledger: Ledger,
        own: Codebook,
        book: Book,
        outside: Outside,
        topics: Topics,
        clock_ms: Callable[[], int],
        *,
        reservoir: Reservoir,
        policy: Policy,
        pace: Pace = Pace(),  # noqa: B008 - immutable
        automatic: bool = True,
    ) -> None:
        self._ledger, self._own, self._book, self._outside = ledger, own, book, outside
        self._topics, self._clock_ms, self._reservoir, self._policy = topics, clock_ms, reservoir, policy
        self._pace, self._automatic = pace, automatic
        self._voice = Voice(outside, topics, book, pace, clock_ms)
        self._reading = Lock()  # a refresh compares and publishes against one state of the ledger
        self._measured_at = float("-inf")
        self._refreshed_at = float("-inf")
        self._decision: Decision | None = None
        self._own_baseline = Baseline.of(own, reservoir.sample().vectors)
        self._seen_request = ""

    @property
    def bundle(self) -> str:
        """The bundle whose codes are kept."""
        return self._ledger.bundle

    def hear(self, words: Sequence[Word], places: Places) -> None:
        """Take what the topic `item-codes` says."""
        with self._reading:
            found = self._ledger.apply(words, places)
            new = {item: parts for item, parts in found.items() if parts is not None}
            self._reservoir.drop(item for item, parts in found.items() if parts is None)
            if new:
                self._reservoir.put(list(new), np.stack(list(new.values())))

    def tick(self, now: float) -> None:
        """Answer a request that waits, else measure when it is time, and refresh when the policy says so.

        Raises:
            LeadershipLostError: another one is the keeper. PublishError: only where even the answer of a failed request was not taken.
        """
        request = self._book.request
        if request is not None and request.id != self._seen_request:
            self._seen_request = request.id
            self._fulfil(request)
        elif now - self._measured_at >= self._pace.measure_s and len(self._ledger):
            self._measured_at = now
            how = self._measure().action
            if how != "none" and self._may_act() and now - self._refreshed_at >= self._pace.rest_s:
                self._refreshed_at = now
                self._attempt(how, None)

    def current(self) -> Codebook:
        """The codebook in use."""
        return self._book.used(self.bundle, self._own)

    def _may_act(self) -> bool:
        """Not after a rollback: whoever made it had a reason, and ends it by asking for a refresh."""
        said = self._book.currents.get(self.bundle)
        return self._automatic and (said is None or said.why != "rollback")

    # What is asked for

    def _fulfil(self, request: CodesRequest) -> None:
        answered = self._book.answer
        if answered is not None and answered.id == request.id:
            if answered.state == "working":
                detail = "the worker that was at it ended; the generation in use stays. Ask again"
                self._voice.answer(request, "failed", detail)
        elif self._clock_ms() - request.asked_ms > 1000 * self._pace.request_age_s:
            log.warning("a request for a %s of codes is too old and is left alone", request.what)
        elif request.what == "rollback":
            self._roll_back(request)
        else:
            self._attempt(request.how, request)

    def _attempt(self, how: str, request: CodesRequest | None) -> None:
        """Refresh, and say how it went; a failure leaves all as it was."""
        began, changed = monotonic(), 0
        result: Literal["done", "none", "refused", "failed"]
        try:
            self._voice.answer(request, "working", "measuring and training")
            if how == "auto":
                how = self._asked()
            result, detail, generation, changed = self._refresh(how, request)
        except CodesRequestError as error:
            result, detail, generation = "refused", str(error), ""
        except PublishError as error:
            log.error("the refresh of codes failed, the generation in use stays: %s", error)
            result, detail, generation = "failed", str(error), ""
        seconds = monotonic() - began
        log.info("refresh of codes (%s) of bundle %s: %s, %s, %.2f s", how, self.bundle, result, detail, seconds)
        self._outside.refreshed(how, result, seconds, changed)
        state: State = "done" if result == "none" else result
        self._voice.answer(request, state, detail, generation, changed)

    def _roll_back(self, request: CodesRequest) -> None:
        own, book = self._own.generation, self._book
        now = book.current(self.bundle, own)
        target = request.to or book.previous(self.bundle, own) or ""
        result: State
        if not target:
            result, detail = "refused", f"there is no generation before {now}"
        elif target == now:
            result, detail = "refused", f"{now} is in use already"
        elif target != own and book.complete(self.bundle, target) is None:
            there = ", ".join([own, *(g.generation for g in book.of(self.bundle) if g.ends is not None)])
            result, detail = "refused", f"there is no complete generation {target}; there are {there}"
        else:
            said = CurrentCodes(bundle=self.bundle, generation=target, previous=now, since_ms=self._clock_ms(), why="rollback")
            result, detail = "done", f"{target} is in use again, in place of {now}"
            try:
                self._voice.name(said)
            except PublishError as error:
                result, detail = "failed", str(error)
        self._outside.refreshed("rollback", result, 0.0, 0)
        self._voice.answer(request, result, detail, target)

    # A refresh

    def _refresh(self, how: str, request: CodesRequest | None) -> tuple[Literal["done", "none"], str, str, int]:
        """Result, a sentence, the generation in use then, and how many codes changed."""
        if how == "none":
            return "none", "nothing to do: the codes fit their vectors", self.current().generation, 0
        parent = self.current()
        sample = self._sample()
        new = refresh(parent, self._learnt_from(), how, SEED)  # 1
        if new.generation == parent.generation and how != "encode":
            return "none", "training ended in the centroids that are in use", parent.generation, 0
        record = self._record(how, parent, new)
        if new.generation != parent.generation:
            self._voice.say(record)  # 2
            self._outside.wait(self._pace.announce_s)
        with self._reading:
            begins = dict(self._ledger.places)
            changed = self._publish(new, parent, request)  # 3
            record = msgspec.structs.replace(
                record, items=len(self._ledger), changed=changed, begins=begins, finished_ms=self._clock_ms(), ends=self._voice.ends()
            )
        sentence = f"{changed:,} of {record.items:,} codes changed"
        if new.generation != parent.generation:
            baseline = msgspec.to_builtins(Baseline.of(new, sample.vectors))
            self._voice.say(msgspec.structs.replace(record, baseline=baseline))  # 4
            current = CurrentCodes(
                bundle=self.bundle, generation=new.generation, previous=parent.generation, since_ms=self._clock_ms(), why="refresh"
            )
            self._voice.name(current)  # 5
            self._decision = None
            wanted = {new.generation, parent.generation}  # no rollback leads to older ones, nor to one that was never finished
            self._voice.take_back([g.generation for g in self._book.of(self.bundle) if g.generation not in wanted])  # 6
        return "done", sentence, new.generation, changed

    def _learnt_from(self) -> Floats:
        """What centroids are trained on: as many vectors of the whole catalogue as training makes use of."""
        with self._reading:
            vectors = self._ledger.coded  # (n, D)
            if len(vectors) <= TRAINING_VECTORS:
                return vectors.copy()
            return vectors[np.random.default_rng(SEED).choice(len(vectors), TRAINING_VECTORS, replace=False)]

    def _sample(self) -> Sample:
        with self._reading:
            sample = self._reservoir.sample()
        if not sample.items:
            raise CodesRequestError("no item was seen yet: there is nothing to learn centroids from")
        return sample

    def _record(self, how: str, parent: Codebook, new: Codebook) -> Generation:
        return Generation(
            generation=new.generation,
            bundle=self.bundle,
            own=self._own.generation,
            parent=parent.generation,
            centroids=new.centroids.astype("<f4").tobytes(),
            shape=new.centroids.shape,
            how=how,  # type: ignore[arg-type]
            started_ms=self._clock_ms(),
        )

    def _publish(self, new: Codebook, parent: Codebook, request: CodesRequest | None) -> int:
        """Publish a Recode of each row whose code is another than that of the parent, or than what is published; how many."""
        ledger = self._ledger
        codes = new.encode(ledger.coded)
        before = ledger.codes.copy()
        other = np.flatnonzero(~ledger.of_generation(parent.generation))
        before[other] = parent.encode(ledger.coded[other])
        rows = np.flatnonzero((codes != before).any(axis=1) | (codes != ledger.codes).any(axis=1))
        for at in range(0, len(rows), self._pace.batch):
            self._voice.answer(request, "working", "publishing changed codes", new.generation, at, len(rows))
            self._voice.send(self._recodes(rows[at : at + self._pace.batch], codes, new.generation))
        ledger.renamed(new.generation, np.flatnonzero((codes == ledger.codes).all(axis=1)))
        return len(rows)

    def _recodes(self, rows: np.ndarray, codes: Codes, generation: str) -> list[Outgoing]:
        made = []
        for row in rows.tolist():
            partition, recode = self._ledger.recode(row, generation, codes[row])
            key = RECODE + recode.item_id.encode()
            made.append(Outgoing(self._topics.item_codes, key, msgspec.json.encode(recode), partition=partition))
        return made

    # What is measured

    def _measure(self) -> Decision:
        """Measure the codes in use, publish the report; what the policy says to it."""
        codebook = self.current()
        with self._reading:
            sample = self._reservoir.sample()
            codes, items = self._ledger.codes_of(sample.items), len(self._ledger)
        if not sample.items:
            return Decision(action="none", reason="there are no items")
        drift = measure(codebook, self._baseline(codebook), sample.vectors, codes)
        self._decision = self._policy.choose(drift, self._decision)
        self._voice.say(self._report(codebook.generation, items, drift, self._decision))
        self._outside.measured(codebook.generation, drift, self._decision)
        return self._decision

    def _asked(self) -> How | Literal["none"]:
        """What a person who leaves it to the policy gets: what one measurement wants, without waiting for it to last."""
        decision = self._measure()
        return decision.wanted if decision.action == "none" else decision.action

    def _baseline(self, codebook: Codebook) -> Baseline:
        """The figures of a generation when it was made."""
        if codebook.generation == self._own.generation:
            return self._own_baseline
        return msgspec.convert(self._book.generations[codebook.generation].baseline, Baseline, strict=False)

    def _report(self, generation: str, items: int, drift: Drift, decision: Decision) -> DriftReport:
        return DriftReport(
            bundle=self.bundle,
            own=self._own.generation,
            generation=generation,
            measured_ms=self._clock_ms(),
            items=items,
            figures=figures(drift),
            action=decision.action,
            reason=decision.reason,
            automatic=self._may_act(),
        )

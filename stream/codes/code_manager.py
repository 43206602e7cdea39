"""The code manager: measures how far item codes have drifted from their vectors, and refreshes them. It knows no Kafka and no threads.

A refresh has six steps, in the order that readers rely on (stream.codes.codebook_registry): 1 train a codebook, 2 announce it, 3 compare
and publish a Recode of every item whose code changed, 4 announce it again with `ends`, 5 activate it, 6 retract codebooks that no rollback
can return to. A failure before 5 leaves a codebook that no index serves; the next refresh retracts it.
"""

import logging
from collections.abc import Callable, Sequence
from threading import Lock
from time import monotonic
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from models.codes.codebook import TRAINING_VECTORS, Codebook, Codes, Floats
from models.codes.drift import Baseline, Decision, Drift, Policy, measure, refresh
from models.codes.reservoir import Reservoir, ReservoirSample
from stream.codes.catalogue_snapshot import CatalogueSnapshot, Selected
from stream.codes.codebook_publisher import CodebookPublisher, Pace, Ports, State, Topics, figures
from stream.codes.codebook_registry import CodebookRegistry
from stream.codes.readers import CodeRecord
from stream.errors import CodesRequestError, PublishError
from stream.kafka.messages import RECODE, CodebookRecord, CodesRequest, CurrentCodes, DriftReport, How
from stream.kafka.producer import Outgoing
from stream.kafka.topic_reader import Offsets

log = logging.getLogger(__name__)

SEED = 1


class Changes(NamedTuple):
    """The items whose codes (m, P) change, as of `begins`, the offsets compared up to; `items` is the size of the catalogue then."""

    selected: Selected
    codes: Codes
    begins: Offsets
    items: int


class CodeManager:
    """Manages the codes of one bundle. The reader of `item-codes` calls `apply`; another thread calls `tick` every now and then."""

    def __init__(  # noqa: PLR0913
        self,
        catalogue: CatalogueSnapshot,
        own: Codebook,
        registry: CodebookRegistry,
        ports: Ports,
        topics: Topics,
        clock_ms: Callable[[], int],
        *,
        reservoir: Reservoir,
        policy: Policy,
        pace: Pace = Pace(),  # noqa: B008 - immutable
        automatic: bool = True,
    ) -> None:
        self._catalogue, self._own, self._registry, self._ports = catalogue, own, registry, ports
        self._topics, self._clock_ms, self._reservoir, self._policy = topics, clock_ms, reservoir, policy
        self._pace, self._automatic = pace, automatic
        self._publisher = CodebookPublisher(ports, topics, registry, pace, clock_ms)
        self._lock = Lock()  # of catalogue and reservoir; never held while anything is published
        self._measured_at = float("-inf")
        self._refreshed_at = float("-inf")
        self._decision: Decision | None = None
        self._own_baseline = Baseline.of(own, reservoir.sample().vectors)
        self._seen_request = ""

    @property
    def bundle(self) -> str:
        """The bundle whose codes are managed."""
        return self._catalogue.bundle

    def apply(self, records: Sequence[CodeRecord], offsets: Offsets) -> None:
        """Apply records of the topic `item-codes`."""
        with self._lock:
            found = self._catalogue.apply(records, offsets)
            new = {item: parts for item, parts in found.items() if parts is not None}
            self._reservoir.drop(item for item, parts in found.items() if parts is None)
            if new:
                self._reservoir.put(list(new), np.stack(list(new.values())))

    def tick(self, now: float) -> None:
        """Answer a waiting request; otherwise measure when it is time, and refresh when the policy calls for it.

        Raises:
            LeadershipLostError: another worker is the manager. PublishError: not even the answer to a failed request was acknowledged.
        """
        request = self._registry.request
        if request is not None and request.id != self._seen_request:
            self._seen_request = request.id
            self._fulfil(request)
        elif now - self._measured_at >= self._pace.measure_s and len(self._catalogue):
            self._measured_at = now
            how = self._measure().action
            if how != "none" and self._may_act() and now - self._refreshed_at >= self._pace.rest_s:
                self._refreshed_at = now
                self._attempt(how, None)

    def current(self) -> Codebook:
        """The codebook in use."""
        return self._registry.used(self.bundle, self._own)

    def _may_act(self) -> bool:
        """Not after a rollback: its reason holds until somebody requests a refresh."""
        current = self._registry.currents.get(self.bundle)
        return self._automatic and (current is None or current.why != "rollback")

    # Requests

    def _fulfil(self, request: CodesRequest) -> None:
        answered = self._registry.answer
        if answered is not None and answered.id == request.id:
            if answered.state == "working":
                detail = "the worker that was at it ended; the generation in use stays. Send the request again"
                self._publisher.answer(request, "failed", detail)
        elif self._clock_ms() - request.asked_ms > 1000 * self._pace.request_age_s:
            log.warning("a request for a %s of codes is too old and is ignored", request.what)
        elif request.what == "rollback":
            self._roll_back(request)
        else:
            self._attempt(request.how, request)

    def _attempt(self, how: str, request: CodesRequest | None) -> None:
        """Refresh, and report the result; a failure leaves everything as it was."""
        began, changed = monotonic(), 0
        result: Literal["done", "none", "refused", "failed"]
        try:
            self._publisher.answer(request, "working", "measuring and training")
            if how == "auto":
                how = self._choose()
            result, detail, codebook, changed = self._refresh(how, request)
        except CodesRequestError as error:
            result, detail, codebook = "refused", str(error), ""
        except PublishError as error:
            log.error("the refresh of codes failed, the generation in use stays: %s", error)
            result, detail, codebook = "failed", str(error), ""
        seconds = monotonic() - began
        log.info("refresh of codes (%s) of bundle %s: %s, %s, %.2f s", how, self.bundle, result, detail, seconds)
        self._ports.codes_refreshed(how, result, seconds, changed)
        state: State = "done" if result == "none" else result
        self._publisher.answer(request, state, detail, codebook, changed)

    def _roll_back(self, request: CodesRequest) -> None:
        own, registry = self._own.generation, self._registry
        now = registry.current(self.bundle, own)
        target = request.to or registry.previous(self.bundle, own) or ""
        result: State
        if not target:
            result, detail = "refused", f"there is no generation before {now}"
        elif target == now:
            result, detail = "refused", f"{now} is in use already"
        elif target != own and registry.complete(self.bundle, target) is None:
            known = ", ".join([own, *(record.codebook for record in registry.of(self.bundle) if record.ends is not None)])
            result, detail = "refused", f"there is no complete generation {target}; there are {known}"
        else:
            current = CurrentCodes(bundle=self.bundle, codebook=target, previous=now, since_ms=self._clock_ms(), why="rollback")
            result, detail = "done", f"{target} is in use again, instead of {now}"
            try:
                self._publisher.activate(current)
            except PublishError as error:
                result, detail = "failed", str(error)
        self._ports.codes_refreshed("rollback", result, 0.0, 0)
        self._publisher.answer(request, result, detail, target)

    # A refresh

    def _refresh(self, how: str, request: CodesRequest | None) -> tuple[Literal["done", "none"], str, str, int]:
        """The result, a sentence, the codebook then in use, and how many codes changed."""
        if how == "none":
            return "none", "nothing to do: the codes fit their vectors", self.current().generation, 0
        parent = self.current()
        sample = self._sample()
        new = refresh(parent, self._training_vectors(), how, SEED)  # 1
        if new.generation == parent.generation and how != "encode":
            return "none", "training ended in the centroids that are in use", parent.generation, 0
        record = self._record(how, parent, new)
        if new.generation != parent.generation:
            self._publisher.publish(record)  # 2
            self._ports.wait(self._pace.announce_s)
        changes = self._compare(new, parent)
        changed = len(changes.codes)
        self._publish(changes, new.generation, request)  # 3
        sentence = f"{changed:,} of {changes.items:,} codes changed"
        if new.generation != parent.generation:
            finished = msgspec.structs.replace(
                record,
                items=changes.items,
                changed=changed,
                begins=changes.begins,
                finished_ms=self._clock_ms(),
                ends=self._publisher.ends(),
                baseline=msgspec.to_builtins(Baseline.of(new, sample.vectors)),
            )
            self._publisher.publish(finished)  # 4
            current = CurrentCodes(
                bundle=self.bundle, codebook=new.generation, previous=parent.generation, since_ms=self._clock_ms(), why="refresh"
            )
            self._publisher.activate(current)  # 5
            self._decision = None
            wanted = {new.generation, parent.generation}
            self._publisher.retract([r.codebook for r in self._registry.of(self.bundle) if r.codebook not in wanted])  # 6
        return "done", sentence, new.generation, changed

    def _training_vectors(self) -> Floats:
        """What centroids are trained on: as many vectors of the whole catalogue as training uses."""
        with self._lock:
            vectors = self._catalogue.coded  # (n, D)
            if len(vectors) <= TRAINING_VECTORS:
                return vectors.copy()
            return vectors[np.random.default_rng(SEED).choice(len(vectors), TRAINING_VECTORS, replace=False)]

    def _sample(self) -> ReservoirSample:
        with self._lock:
            sample = self._reservoir.sample()
        if not sample.items:
            raise CodesRequestError("there are no items yet, so there is nothing to train centroids on")
        return sample

    def _record(self, how: str, parent: Codebook, new: Codebook) -> CodebookRecord:
        return CodebookRecord(
            codebook=new.generation,
            bundle=self.bundle,
            own=self._own.generation,
            parent=parent.generation,
            centroids=new.centroids.astype("<f4").tobytes(),
            shape=new.centroids.shape,
            how=how,  # type: ignore[arg-type]
            started_ms=self._clock_ms(),
        )

    def _compare(self, new: Codebook, parent: Codebook) -> Changes:
        """The items whose code differs from that of the parent, or from the published one."""
        with self._lock:
            catalogue = self._catalogue
            codes = new.encode(catalogue.coded)
            before = catalogue.codes.copy()
            other = np.flatnonzero(~catalogue.of_codebook(parent.generation))
            before[other] = parent.encode(catalogue.coded[other])
            rows = np.flatnonzero((codes != before).any(axis=1) | (codes != catalogue.codes).any(axis=1))
            catalogue.tag(new.generation, np.flatnonzero((codes == catalogue.codes).all(axis=1)))
            return Changes(catalogue.select(rows), codes[rows], dict(catalogue.offsets), len(catalogue))

    def _publish(self, changes: Changes, codebook: str, request: CodesRequest | None) -> None:
        """Publish a Recode per changed item. A record for a vector that changes meanwhile says nothing: it holds the old one's digest."""
        selected, codes, size = changes.selected, changes.codes, self._pace.batch
        for at in range(0, len(codes), size):
            self._publisher.answer(request, "working", "publishing changed codes", codebook, at, len(codes))
            self._publisher.send(
                [
                    Outgoing(self._topics.item_codes, RECODE + recode.item_id.encode(), msgspec.json.encode(recode), partition=partition)
                    for partition, recode in selected.recodes(self.bundle, codebook, codes, at, at + size)
                ]
            )

    # Measurement

    def _measure(self) -> Decision:
        """Measure the codes in use and publish the report. Returns the policy's decision."""
        codebook = self.current()
        with self._lock:
            sample = self._reservoir.sample()
            codes, items = self._catalogue.codes_of(sample.items), len(self._catalogue)
        if not sample.items:
            return Decision(action="none", reason="there are no items")
        drift = measure(codebook, self._baseline(codebook), sample.vectors, codes)
        self._decision = self._policy.choose(drift, self._decision)
        self._publisher.publish(self._report(codebook.generation, items, drift, self._decision))
        self._ports.measured(codebook.generation, drift, self._decision)
        return self._decision

    def _choose(self) -> How | Literal["none"]:
        """The action for a person who leaves it to the policy: what one measurement calls for, without waiting for it to last."""
        decision = self._measure()
        return decision.wanted if decision.action == "none" else decision.action

    def _baseline(self, codebook: Codebook) -> Baseline:
        """The figures of a codebook right after it was trained."""
        if codebook.generation == self._own.generation:
            return self._own_baseline
        return msgspec.convert(self._registry.announced[codebook.generation].record.baseline, Baseline, strict=False)

    def _report(self, codebook: str, items: int, drift: Drift, decision: Decision) -> DriftReport:
        return DriftReport(
            bundle=self.bundle,
            own=self._own.generation,
            codebook=codebook,
            measured_ms=self._clock_ms(),
            items=items,
            figures=figures(drift),
            action=decision.action,
            reason=decision.reason,
            automatic=self._may_act(),
        )

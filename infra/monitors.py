"""Observers of stream.workers: turn a worker's events into metrics and readiness."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from features.events import Topic
from features.table import USER_INTERESTS
from infra.clock import wall_ms
from infra.health import Health, away
from infra.metrics import CatalogueMetrics, IngestMetrics, RefreshMetrics, WorkerMetrics
from stream.kafka.progress import Partition
from stream.workers.observer import Part, WorkerObserver

if TYPE_CHECKING:  # imports torch, which the ingest worker does not need
    from models.codes.drift import Decision, Drift
    from stream.pipelines.catalogue import CatalogueOutcome
    from stream.pipelines.ingest import Outcome
    from stream.pipelines.refresh import RefreshOutcome


class WorkerMonitor(WorkerObserver):
    """The metrics of a role and its readiness conditions: broker, store, partitions, progress, and the given ones."""

    def __init__(self, metrics: WorkerMetrics, *conditions: str) -> None:
        self.metrics, self.health = metrics, Health("broker", "store", "partitions", *conditions)
        metrics.follow(self.health)

    def assigned(self) -> None:
        """See `WorkerObserver`."""
        self.health.set_ready("partitions")

    def batch(self, records: int, seconds: float, steps: Mapping[str, float]) -> None:
        """See `WorkerObserver`."""
        self.metrics.batch(records, seconds, steps)

    def retry(self, step: str, error: Exception) -> None:
        """See `WorkerObserver`."""
        self.metrics.retry(step, error)

    def unavailable(self, part: Part, step: str) -> None:
        """See `WorkerObserver`."""
        self.health.set_failed(part, f"{step}: {away(part)}")

    def recovered(self) -> None:
        """See `WorkerObserver`."""
        self.health.set_ready("store")
        self.health.set_ready("broker")

    def dropped(self, topic: str) -> None:
        """See `WorkerObserver`."""
        self.metrics.messages_dropped.labels(topic, "too_large").inc()

    def progress(self, lag: Mapping[Partition, int], stalled: Sequence[Partition]) -> None:
        """See `WorkerObserver`."""
        self.metrics.lags(lag)
        if stalled:
            self.health.set_failed("progress", f"no progress on {', '.join(f'{topic}/{number}' for topic, number in stalled)}")
        else:
            self.health.set_ready("progress")


class IngestMonitor(WorkerMonitor):
    """The observer of an ingest worker (stream.workers.ingest.IngestObserver)."""

    metrics: IngestMetrics

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(IngestMetrics(registry))

    def ingested(self, topic: Topic, outcome: "Outcome", written_ms: int) -> None:
        """See `IngestObserver`."""
        metrics = self.metrics
        taken = {name: number for name, number in outcome.counts.items() if name != "dead"}
        _add(metrics.events, lambda name: {"topic": topic.value, "outcome": name}, taken)
        _add(metrics.dead_letters, lambda name: {"reason": name}, Counter(letter.reason for letter in outcome.dead))
        _add(metrics.rows_written, lambda name: {"view": name}, outcome.rows_written)
        _add(metrics.rows_refused, lambda name: {"view": name}, outcome.rows_refused)
        _add(metrics.rows_quarantined, lambda name: {"view": name}, Counter(row.view for row in outcome.apart))
        for request in outcome.refreshes:
            metrics.event_to_feature.observe(max(0, written_ms - request.sent_ms) / 1000)


class BundleMonitor(WorkerMonitor):
    """The observer of a worker that serves a bundle (stream.workers.bundle_follower.BundleObserver)."""

    metrics: CatalogueMetrics | RefreshMetrics

    def no_bundle(self, reason: str) -> None:
        """See `BundleObserver`."""
        self.health.set_failed("bundle", reason)

    def bundle(self, generation: str) -> None:
        """See `BundleObserver`."""
        self.metrics.bundle(generation)
        self.health.set_ready("bundle")

    def bundle_problem(self, reason: str | None) -> None:
        """See `BundleObserver`."""
        self.health.warn("bundle", reason)

    def skipped(self, topic: str, reason: str) -> None:
        """See `BundleObserver`."""
        self.metrics.skipped(topic, reason)


class CatalogueMonitor(BundleMonitor):
    """The observer of a catalogue worker (stream.workers.catalogue.CatalogueObserver)."""

    metrics: CatalogueMetrics

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(CatalogueMetrics(registry), "bundle")

    def catalogued(self, outcome: "CatalogueOutcome") -> None:
        """See `CatalogueObserver`."""
        metrics = self.metrics
        _add(metrics.events, lambda name: {"topic": "items", "outcome": name}, {"applied": outcome.counts["applied"]})
        metrics.items_outdated.inc(outcome.outdated)
        _add(metrics.embeddings_ignored, lambda name: {"modality": name}, outcome.ignored)
        _add(metrics.dead_letters, lambda name: {"reason": name}, Counter(letter.reason for letter in outcome.dead))

    def codes(self, codebook: str) -> None:
        """See `CatalogueObserver`."""
        self.metrics.codes(codebook)

    def measured(self, codebook: str, drift: "Drift", decision: "Decision") -> None:
        """See `stream.codes.code_manager_thread.CodesObserver`."""
        from stream.codes.codebook_publisher import figures

        self.metrics.drift(codebook, figures(drift), decision.wanted)

    def codes_refreshed(self, how: str, result: str, seconds: float, changed: int) -> None:
        """See `stream.codes.code_manager_thread.CodesObserver`."""
        self.metrics.codes_refreshes.labels(how, result).inc()
        if seconds:
            self.metrics.codes_refresh_seconds.observe(seconds)
        self.metrics.codes_changed.inc(changed)

    def leadership_lost(self) -> None:
        """See `stream.codes.code_manager_thread.CodesObserver`."""
        self.metrics.no_drift()


class RefreshMonitor(BundleMonitor):
    """The observer of a refresh worker and of its index (stream.workers.refresh, stream.workers.live_serving)."""

    metrics: RefreshMetrics

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(RefreshMetrics(registry), "bundle", "index")

    def refreshed(self, outcome: "RefreshOutcome") -> None:
        """See `RefreshObserver`."""
        metrics, quarantined = self.metrics, USER_INTERESTS.name
        _add(metrics.refreshes, lambda level: {"level": level}, outcome.levels)
        unreadable = {view: number for view, number in outcome.unreadable.items() if view != quarantined}
        _add(metrics.rows_unreadable, lambda view: {"view": view}, unreadable)
        metrics.rows_quarantined.labels(quarantined).inc(outcome.unreadable.get(quarantined, 0))
        if outcome.failure:
            self.health.set_failed("model", outcome.failure)
        else:
            self.health.set_ready("model")

    def latency(self, sent_ms: Sequence[int]) -> None:
        """See `RefreshObserver`."""
        now = wall_ms()
        for sent in sent_ms:
            self.metrics.event_to_candidate.observe(max(0, now - sent) / 1000)

    def coalesced(self, requests: int) -> None:
        """See `RefreshObserver`."""
        self.metrics.users_coalesced.inc(requests)

    def index_ready(self) -> None:
        """See `ServingObserver`."""
        self.health.set_ready("index")

    def index(self, memory_bytes: float, changes: int, unfinished_codebooks: int) -> None:
        """See `ServingObserver`."""
        self.metrics.index_bytes.set(memory_bytes)
        self.metrics.index_segment.set(changes)
        self.metrics.codes_unfinished.set(unfinished_codebooks)

    def items(self, items: int, newest_ts: int, sent_ms: Sequence[int]) -> None:
        """See `stream.serving.live_index.IndexObserver`."""
        now = wall_ms()
        self.metrics.index_items.set(items)
        if newest_ts:
            self.metrics.index_newest.set(newest_ts / 1000)
        for sent in sent_ms:
            self.metrics.item_to_index.observe(max(0, now - sent) / 1000)

    def codebooks(self, serving: str, held: Sequence[str]) -> None:
        """See `stream.serving.live_index.IndexObserver`."""
        self.metrics.codes(serving, len(held))

    def left_out(self, codes: int) -> None:
        """See `stream.serving.live_index.IndexObserver`."""
        self.metrics.codes_left_out.inc(codes)

    def encoded_here(self, codes: int) -> None:
        """See `stream.serving.live_index.IndexObserver`."""
        self.metrics.codes_made_here.inc(codes)

    def upkeep(self, what: str, seconds: float) -> None:
        """See `stream.serving.live_index.IndexObserver`."""
        self.metrics.index_upkeep_seconds.labels(what).observe(seconds)


def _add(counter: Any, labels: Callable[[str], Mapping[str, str]], numbers: Mapping[Any, int]) -> None:
    """Add each number to the series of its labels."""
    for name, number in numbers.items():
        if number:
            counter.labels(**labels(name)).inc(number)

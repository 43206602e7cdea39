"""The metrics of each role. A process has the families of its role and no others; docs/metrics.md describes them.

To add a family: declare it in the class of the role that uses it, or in the class above if all roles below it use it, and add a row
to the table of that class in docs/metrics.md. tests/unit/infra/test_metrics.py compares names, types and labels of each role with
the page, tests/contracts/test_demo.py compares names and label values with running processes.

No user or item id is a label. Labels have small sets of values: topics, partitions, reasons, roles, steps, views, levels, routes.
A counter with a known set of values shows all of them from the start: the first value of a new series is not an increase for `increase`.
"""

from collections.abc import Iterable, Mapping
from itertools import product

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from features.events import Reason, Topic
from features.table import USER, USER_CATEGORY, USER_INTERESTS
from infra.build import build
from infra.health import Health
from stream.kafka.messages import LEVELS

PATH_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)
STEP_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
LONG_BUCKETS_S = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 300)
SIZE_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


class Metrics:
    """The families of every process, in a registry of its own: two objects never share a series."""

    role = ""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        disable_created_metrics()
        self.registry = registry = registry or CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.build = Gauge("everlong_build_info", "1 for the build that runs", build()._fields, registry=registry)
        self.build.labels(*build()).set(1)
        self.ready = Gauge("everlong_ready", "1 while every readiness condition holds", registry=registry)

    def follow(self, health: Health) -> None:
        """Let the ready gauge show this health."""
        self.ready.set_function(lambda: float(health.ready))


class ApiMetrics(Metrics):
    """The families of the API."""

    role = "api"

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        registry = self.registry
        self.requests = Counter("everlong_http_requests", "HTTP requests answered", ["route", "status"], registry=registry)
        self.request_seconds = Histogram(
            "everlong_http_request_seconds", "Time to answer a request", ["route"], buckets=STEP_BUCKETS_S, registry=registry
        )


class WorkerMetrics(Metrics):
    """The families of every worker."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        registry = self.registry
        self._with_lag: set[tuple[str, int]] = set()
        self.lag = Gauge("everlong_lag_records", "Records waiting in a partition", ["topic", "partition"], registry=registry)
        self.batch_seconds = Histogram(
            "everlong_batch_seconds", "A whole batch, from records to acknowledgement", ["role"], buckets=STEP_BUCKETS_S, registry=registry
        )
        self.step_seconds = Histogram(
            "everlong_step_seconds", "One step of a batch", ["role", "step"], buckets=STEP_BUCKETS_S, registry=registry
        )
        self.batch_records = Histogram("everlong_batch_records", "Records in a batch", ["role"], buckets=SIZE_BUCKETS, registry=registry)
        self.retries = Counter("everlong_retries", "Retries, by failed step and error", ["role", "step", "error"], registry=registry)
        self.messages_dropped = Counter(
            "everlong_messages_dropped",
            "Records too large for the broker, not sent",
            ["topic", "reason"],
            registry=registry,
        )

    def batch(self, records: int, seconds: float, steps: Mapping[str, float]) -> None:
        """A batch is done: its number of records, its whole time and the time of each of its steps."""
        self.batch_records.labels(self.role).observe(records)
        self.batch_seconds.labels(self.role).observe(seconds)
        for step, taken in steps.items():
            self.step_seconds.labels(self.role, step).observe(taken)

    def retry(self, step: str, error: Exception) -> None:
        """A step failed with this error and will be retried."""
        self.retries.labels(self.role, step, type(error).__name__).inc()

    def lags(self, waiting: Mapping[tuple[str, int], int]) -> None:
        """Records waiting in each partition, by topic and number. Partitions that now belong to another worker are removed."""
        for partition in self._with_lag - waiting.keys():
            self.lag.remove(*map(str, partition))
        for (topic, number), records in waiting.items():
            self.lag.labels(topic, str(number)).set(records)
        self._with_lag = set(waiting)


class IngestMetrics(WorkerMetrics):
    """The families of the ingest worker."""

    role = "ingest"

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        registry = self.registry
        self.events = _events(registry, (Topic.CLICKS, Topic.QUERIES, Topic.ORDERS), ("applied", "duplicate", "redelivered"))
        self.dead_letters = _dead_letters(registry)
        self.event_to_feature = Histogram(
            "everlong_event_to_feature_seconds", "From sending an event to its row being written", buckets=PATH_BUCKETS_S, registry=registry
        )
        views = USER.name, USER_CATEGORY.name
        self.rows_written = _shown(Counter("everlong_rows_written", "Rows accepted by the store", ["view"], registry=registry), views)
        self.rows_refused = _shown(
            Counter("everlong_rows_refused", "Rows refused because the store holds a newer version", ["view"], registry=registry), views
        )
        self.rows_quarantined = _quarantined(registry, (USER.name, USER_CATEGORY.name))


class CatalogueMetrics(WorkerMetrics):
    """The families of the catalogue worker; those of drift are shown only by the leader, which manages the codes."""

    role = "catalogue"

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        registry = self.registry
        self.events = _events(registry, (Topic.ITEMS,), ("applied",))
        self.items_outdated = Counter(
            "everlong_item_states_outdated", "Item events that do not change the item's valid state", registry=registry
        )
        self.embeddings_ignored = _shown(
            Counter("everlong_embeddings_ignored", "Embeddings in item events that the bundle cannot use", ["modality"], registry=registry),
            ("image", "text"),
        )
        self.internal_skipped = _internal_skipped(registry)
        self.dead_letters = _dead_letters(registry)
        self.bundle_generation = _bundle_generation(registry)
        self.codes_generation = _codes_generation(registry)

        def measured(name: str, what: str) -> Gauge:
            return Gauge(f"everlong_codes_{name}", what, ["generation"], registry=registry)

        self.codes_distortion = measured("distortion_ratio", "Distortion of the codes in use relative to their distortion when trained")
        self.codes_perplexity = measured("perplexity", "Perplexity of code usage in the worst subspace")
        self.codes_dead = measured("dead", "Codes that no measured item uses, over all subspaces")
        self.codes_overlap = measured("overlap", "Share of the exact top 100 among the top 100 by codes")
        self.codes_stale = measured("stale_share", "Share of items whose published code differs from the code of their vector")
        self.codes_wanted = Gauge("everlong_codes_wanted_info", "1 for the action that the policy calls for", ["action"], registry=registry)
        self.codes_refreshes = Counter("everlong_codes_refreshes", "Refreshes of codes", ["how", "result"], registry=registry)
        self.codes_refresh_seconds = Histogram(
            "everlong_codes_refresh_seconds",
            "A refresh of codes, from training to the announcement of the new generation",
            buckets=LONG_BUCKETS_S,
            registry=registry,
        )
        self.codes_changed = Counter("everlong_codes_changed", "Codes published by refreshes", registry=registry)

    def skipped(self, topic: str, reason: str) -> None:
        """A record of an internal topic cannot be used."""
        self.internal_skipped.labels(topic, reason).inc()

    def bundle(self, generation: str) -> None:
        """The process now uses this bundle, and no other."""
        _only(self.bundle_generation, generation)

    def codes(self, generation: str) -> None:
        """The process encodes with this generation of codes, and no other."""
        _only(self.codes_generation, generation)

    def drift(self, generation: str, figures: Mapping[str, float], wanted: str) -> None:
        """The codes in use were measured: `figures` of stream.codes.code_manager, and the action that the policy calls for."""
        self.no_drift()
        for gauge, name in (
            (self.codes_distortion, "relative"),
            (self.codes_perplexity, "perplexity"),
            (self.codes_dead, "dead"),
            (self.codes_overlap, "overlap"),
            (self.codes_stale, "stale"),
        ):
            gauge.labels(generation).set(figures[name])
        self.codes_wanted.labels(wanted).set(1)

    def no_drift(self) -> None:
        """This process no longer measures codes: remove the old figures."""
        shown = self.codes_distortion, self.codes_perplexity, self.codes_dead, self.codes_overlap, self.codes_stale, self.codes_wanted
        for gauge in shown:
            gauge.clear()


class RefreshMetrics(WorkerMetrics):
    """The families of the refresh worker."""

    role = "refresh"

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        registry = self.registry
        self.event_to_candidate = Histogram(
            "everlong_event_to_candidate_seconds",
            "From sending an event to publishing a candidate set that includes it",
            buckets=PATH_BUCKETS_S,
            registry=registry,
        )
        self.item_to_index = Histogram(
            "everlong_item_to_index_seconds",
            "From sending an item event to the index containing it",
            buckets=PATH_BUCKETS_S,
            registry=registry,
        )
        self.refreshes = _shown(Counter("everlong_refreshes", "Candidate sets, by fallback level", ["level"], registry=registry), LEVELS)
        self.users_coalesced = Counter(
            "everlong_users_coalesced", "Refresh requests merged with another one of their user", registry=registry
        )
        self.bundle_generation = _bundle_generation(registry)
        self.index_items = Gauge("everlong_index_items", "Items in the index", registry=registry)
        self.index_newest = Gauge("everlong_index_newest_item_timestamp_seconds", "Event time of the newest item", registry=registry)
        self.index_bytes = Gauge("everlong_index_bytes", "Memory of the index", registry=registry)
        self.index_segment = Gauge("everlong_index_segment_items", "Items changed since the last compaction", registry=registry)
        self.index_upkeep_seconds = Histogram(
            "everlong_index_upkeep_seconds", "Maintenance of an index while it serves", ["what"], buckets=LONG_BUCKETS_S, registry=registry
        )  # what: compact, save, hold
        self.codes_generation = _codes_generation(registry)
        self.codes_unfinished = Gauge(
            "everlong_codes_unfinished", "Generations announced whose codes are not all published", registry=registry
        )
        self.codes_held = Gauge("everlong_codes_held_generations", "Generations of codes in the index", registry=registry)
        self.codes_made_here = Counter(
            "everlong_codes_made_here", "Codes of a generation that is not held, encoded here from the vector", registry=registry
        )
        self.rows_quarantined = _quarantined(registry, (USER_INTERESTS.name,))
        self.rows_unreadable = _shown(
            Counter("everlong_rows_unreadable", "Rows that could not be read, and were treated as empty", ["view"], registry=registry),
            (USER.name, USER_CATEGORY.name),
        )
        self.codes_left_out = Counter("everlong_codes_left_out", "Codes of another bundle, ignored", registry=registry)
        self.internal_skipped = _internal_skipped(registry)

    def skipped(self, topic: str, reason: str) -> None:
        """A record of an internal topic cannot be used."""
        self.internal_skipped.labels(topic, reason).inc()

    def bundle(self, generation: str) -> None:
        """The process now uses this bundle, and no other."""
        _only(self.bundle_generation, generation)

    def codes(self, generation: str, held: int) -> None:
        """The process serves this generation of codes, and no other; its index holds `held` generations."""
        _only(self.codes_generation, generation)
        self.codes_held.set(held)


ROLES: tuple[type[Metrics], ...] = (IngestMetrics, CatalogueMetrics, RefreshMetrics, ApiMetrics)


def _events(registry: CollectorRegistry, topics: Iterable[Topic], outcomes: Iterable[str]) -> Counter:
    events = Counter("everlong_events", "Events read, by outcome", ["topic", "outcome"], registry=registry)
    for topic, outcome in product(topics, outcomes):
        events.labels(topic.value, outcome)
    return events


def _dead_letters(registry: CollectorRegistry) -> Counter:
    letters = Counter("everlong_dead_letters", "Events refused and kept as dead letters", ["reason"], registry=registry)
    return _shown(letters, (reason.value for reason in Reason))


def _quarantined(registry: CollectorRegistry, views: Iterable[str]) -> Counter:
    return _shown(
        Counter("everlong_rows_quarantined", "Rows that could not be read, and were quarantined", ["view"], registry=registry), views
    )


def _internal_skipped(registry: CollectorRegistry) -> Counter:
    return Counter(
        "everlong_internal_records_skipped", "Records of internal topics that cannot be used", ["topic", "reason"], registry=registry
    )


def _bundle_generation(registry: CollectorRegistry) -> Gauge:
    return Gauge("everlong_bundle_generation_info", "1 for the bundle in use", ["generation"], registry=registry)


def _codes_generation(registry: CollectorRegistry) -> Gauge:
    return Gauge("everlong_codes_generation_info", "1 for the generation of codes in use", ["generation"], registry=registry)


def _shown(counter: Counter, values: Iterable[str]) -> Counter:
    """The counter, with the series of these values of its only label shown from the start."""
    for value in values:
        counter.labels(value)
    return counter


def _only(info: Gauge, value: str) -> None:
    info.clear()
    info.labels(value).set(1)

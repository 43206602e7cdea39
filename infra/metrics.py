"""The metrics of a process: one object made with a registry, described in docs/metrics.md, and the server that shows them.

No user or item id is a label. Labels are of small sets: topics, partitions, reasons, roles, steps, views, levels, routes.
"""

import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from features.events import Reason
from infra.health import Health

PATH_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)
STEP_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
LONG_BUCKETS_S = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 300)
SIZE_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


class Metrics:
    """Every metric of Everlong, in the given registry. One a process; two with two registries do not meet."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._with_lag: set[tuple[str, int]] = set()
        self._flow(registry)
        self._work(registry)
        self._serving(registry)
        self._codes(registry)

    def _flow(self, registry: CollectorRegistry) -> None:
        self.events = Counter(
            "everlong_events", "Events read, by what became of them", ["topic", "outcome"], registry=registry
        )  # outcome: applied, duplicate, redelivered
        self.dead_letters = Counter("everlong_dead_letters", "Events refused and kept as dead letters", ["reason"], registry=registry)
        for reason in Reason:
            self.dead_letters.labels(reason)  # shown from the start: to `increase` the first value of a new series is no increase
        self.lag = Gauge("everlong_lag_records", "Records waiting in a partition", ["topic", "partition"], registry=registry)
        self.event_to_feature = Histogram(
            "everlong_event_to_feature_seconds", "From sending an event to its row being written", buckets=PATH_BUCKETS_S, registry=registry
        )
        self.event_to_candidate = Histogram(
            "everlong_event_to_candidate_seconds",
            "From sending an event to the candidate set that answers it",
            buckets=PATH_BUCKETS_S,
            registry=registry,
        )
        self.item_to_index = Histogram(
            "everlong_item_to_index_seconds", "From sending an item to its place in the index", buckets=PATH_BUCKETS_S, registry=registry
        )

    def _work(self, registry: CollectorRegistry) -> None:
        self.batch_seconds = Histogram(
            "everlong_batch_seconds", "A whole batch, from records to acknowledgement", ["role"], buckets=STEP_BUCKETS_S, registry=registry
        )
        self.step_seconds = Histogram(
            "everlong_step_seconds", "One step of a batch", ["role", "step"], buckets=STEP_BUCKETS_S, registry=registry
        )
        self.batch_records = Histogram("everlong_batch_records", "Records in a batch", ["role"], buckets=SIZE_BUCKETS, registry=registry)
        self.retries = Counter("everlong_retries", "Steps tried again after a failure", ["role", "step"], registry=registry)
        self.rows_written = Counter("everlong_rows_written", "Rows that the store took", ["view"], registry=registry)
        self.rows_refused = Counter(
            "everlong_rows_refused", "Rows refused because the store holds a newer version", ["view"], registry=registry
        )

    def _serving(self, registry: CollectorRegistry) -> None:
        self.refreshes = Counter("everlong_refreshes", "Candidate sets made, by degradation level", ["level"], registry=registry)
        self.users_coalesced = Counter("everlong_users_coalesced", "Refresh requests answered together with another", registry=registry)
        self.bundle_generation = Gauge("everlong_bundle_generation_info", "1 for the bundle in use", ["generation"], registry=registry)
        self.index_items = Gauge("everlong_index_items", "Items in the index", registry=registry)
        self.index_newest = Gauge("everlong_index_newest_item_timestamp_seconds", "Event time of the newest item", registry=registry)
        self.ready = Gauge("everlong_ready", "1 while every condition of readiness holds", registry=registry)
        self.requests = Counter("everlong_http_requests", "Requests answered by the API", ["route", "status"], registry=registry)
        self.request_seconds = Histogram(
            "everlong_http_request_seconds", "Answering a request", ["route"], buckets=STEP_BUCKETS_S, registry=registry
        )

    def _codes(self, registry: CollectorRegistry) -> None:
        def measured(name: str, what: str) -> Gauge:
            return Gauge(f"everlong_codes_{name}", what, ["generation"], registry=registry)

        self.codes_generation = measured("generation_info", "1 for the generation of codes in use")
        self.codes_distortion = measured("distortion_ratio", "Distortion of the codes in use against that when they were made")
        self.codes_perplexity = measured("perplexity", "Perplexity of code usage, in the worst sub-space")
        self.codes_dead = measured("dead", "Codes that no measured item has, all sub-spaces together")
        self.codes_overlap = measured("overlap", "Share of the exact best 100 among the best 100 by codes")
        self.codes_stale = measured("stale_share", "Share of items whose published code is not that of their vector")
        self.codes_wanted = Gauge("everlong_codes_wanted_info", "1 for what the policy wants done", ["action"], registry=registry)
        self.codes_refreshes = Counter("everlong_codes_refreshes", "Refreshes of codes", ["how", "result"], registry=registry)
        self.codes_refresh_seconds = Histogram(
            "everlong_codes_refresh_seconds", "A refresh of codes, from training to naming it", buckets=LONG_BUCKETS_S, registry=registry
        )
        self.codes_changed = Counter("everlong_codes_changed", "Codes that refreshes published", registry=registry)
        self.codes_unfinished = Gauge(
            "everlong_codes_unfinished", "Generations announced, their codes not all published", registry=registry
        )
        self.codes_held = Gauge("everlong_codes_held_generations", "Generations of codes in the index", registry=registry)
        self.codes_made_here = Counter(
            "everlong_codes_made_here", "Codes of a generation that was not held, made from the vector", registry=registry
        )
        self.codes_left_out = Counter("everlong_codes_left_out", "Codes of another bundle, left out", registry=registry)
        self.internal_skipped = Counter(
            "everlong_internal_records_skipped", "Records of internal topics that cannot be used", ["topic", "reason"], registry=registry
        )
        self.index_bytes = Gauge("everlong_index_bytes", "Memory of the index", registry=registry)
        self.index_segment = Gauge("everlong_index_segment_items", "Items changed since the last compaction", registry=registry)
        self.index_upkeep_seconds = Histogram(
            "everlong_index_upkeep_seconds", "Work on an index while it serves", ["what"], buckets=LONG_BUCKETS_S, registry=registry
        )  # what: compact, save, hold

    def batch(self, role: str, records: int, steps: Mapping[str, float]) -> None:
        """A batch of a role is done: its records, and the seconds of each step; their sum is the batch's time."""
        self.batch_records.labels(role).observe(records)
        for step, seconds in steps.items():
            self.step_seconds.labels(role, step).observe(seconds)
        self.batch_seconds.labels(role).observe(sum(steps.values()))

    def lags(self, waiting: Mapping[tuple[str, int], int]) -> None:
        """Records that wait in each partition, by topic and number. Those that another worker has now are shown no more."""
        for partition in self._with_lag - waiting.keys():
            self.lag.remove(*map(str, partition))
        for (topic, number), records in waiting.items():
            self.lag.labels(topic, str(number)).set(records)
        self._with_lag = set(waiting)

    def bundle(self, generation: str) -> None:
        """The process now uses this generation, and no other."""
        self.bundle_generation.clear()
        self.bundle_generation.labels(generation).set(1)

    def codes(self, generation: str, held: int = 0) -> None:
        """The process encodes with, or serves, this generation of codes, and no other; so many are in its index."""
        self.codes_generation.clear()
        self.codes_generation.labels(generation).set(1)
        self.codes_held.set(held)

    def drift(self, generation: str, figures: Mapping[str, float], wanted: str) -> None:
        """The codes in use were measured: `figures` as stream.codes.keeper shows them, and what the policy wants done."""
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
        """This process measures codes no longer: show nothing that is getting old."""
        shown = self.codes_distortion, self.codes_perplexity, self.codes_dead, self.codes_overlap, self.codes_stale, self.codes_wanted
        for gauge in shown:
            gauge.clear()

    def follow(self, health: Health) -> None:
        """Let the ready gauge show this health."""
        self.ready.set_function(lambda: float(health.ready))


class MetricsServer:
    """`/metrics`, `/health/live` and `/health/ready` of one process, answered in a thread. Listens from the start."""

    def __init__(self, registry: CollectorRegistry, health: Health, host: str, port: int) -> None:
        class Handler(_Handler):
            metrics_registry = registry
            process_health = health

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.host, self.port = host, int(self._server.server_address[1])
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and end the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_metrics(registry: CollectorRegistry, health: Health, host: str = "127.0.0.1", port: int = 0) -> MetricsServer:
    """Serve metrics and health of a worker; port 0 takes a free one, found in `.port`.

    Raises:
        OSError: the port is taken; choose another with EVERLONG_METRICS_PORT.
    """
    return MetricsServer(registry, health, host, port)


def readiness(health: Health) -> tuple[int, dict[str, object]]:
    """Status and body of `/health/ready`: 200, or 503 with the reason of each condition that does not hold."""
    reasons = health.reasons()
    return (503, {"ready": False, "reasons": reasons}) if reasons else (200, {"ready": True})


class _Handler(BaseHTTPRequestHandler):
    metrics_registry: CollectorRegistry
    process_health: Health
    timeout = 10
    server_version, sys_version = "everlong", ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, CONTENT_TYPE_LATEST, generate_latest(self.metrics_registry))
        elif path == "/health/live":
            self._answer_json(200, {"live": True})
        elif path == "/health/ready":
            self._answer_json(*readiness(self.process_health))
        else:
            self._answer_json(404, {"reason": "not_found", "detail": "there are /metrics, /health/live and /health/ready"})

    def _answer_json(self, status: int, body: dict[str, object]) -> None:
        self._answer(status, "application/json", json.dumps(body).encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not logged."""

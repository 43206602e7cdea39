"""Metrics: what each role shows is what docs/metrics.md says, and the values are right."""

import json
from threading import Thread
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from features.errors import StoreUnavailableError
from features.events import Reason
from infra.build import build
from infra.health import Health
from infra.metrics import ROLES, CatalogueMetrics, IngestMetrics, Metrics, RefreshMetrics
from infra.probes import serve_metrics
from stream.errors import PublishError
from tests.monitoring import documented

ABOUT = {"role": "ingest", "version": build().version}


@pytest.fixture
def metrics():
    return IngestMetrics()


@pytest.fixture
def served(metrics):
    health = Health("store", "broker")
    metrics.follow(health)
    server = serve_metrics(metrics, health)
    yield server, health
    server.close()


def scraped(metrics: Metrics) -> dict[str, tuple[str, frozenset[str]]]:
    """Name, type and labels of every metric, after each has been used once."""
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase) and metric._labelnames:
            metric.labels(*("x" for _ in metric._labelnames))
    shown = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        labels = frozenset().union(*(frozenset(sample.labels) for sample in family.samples)) - {"le"}
        shown[family.name + "_total" if family.type == "counter" else family.name] = family.type, labels
    return shown


@pytest.mark.parametrize("kind", ROLES, ids=lambda kind: kind.role)
def test_the_page_lists_exactly_what_a_role_shows(kind):
    expected = {name: (family.type, frozenset(family.labels)) for name, family in documented(kind.role).items()}
    assert expected == scraped(kind())


@pytest.mark.parametrize("kind", ROLES, ids=lambda kind: kind.role)
def test_no_label_names_a_user_or_an_item(kind):
    assert {label for _, labels in scraped(kind()).values() for label in labels}.isdisjoint({"user", "user_id", "item", "item_id"})


def test_two_objects_do_not_meet(metrics):
    other = IngestMetrics()
    other.events.labels("clicks", "applied").inc()
    assert metrics.registry.get_sample_value("everlong_events_total", {"topic": "clicks", "outcome": "applied"}) == 0


def test_a_batch_is_measured_as_a_whole_and_by_step(metrics):
    metrics.batch(200, 0.025, {"decode": 0.004, "write": 0.016})
    value = metrics.registry.get_sample_value
    assert value("everlong_batch_seconds_sum", {"role": "ingest"}) == pytest.approx(0.025)
    assert value("everlong_step_seconds_sum", {"role": "ingest", "step": "write"}) == pytest.approx(0.016)
    assert value("everlong_step_seconds_bucket", {"role": "ingest", "step": "write", "le": "0.02"}) == 1
    assert value("everlong_step_seconds_bucket", {"role": "ingest", "step": "write", "le": "0.01"}) == 0
    assert value("everlong_batch_records_sum", {"role": "ingest"}) == 200


def test_a_retry_names_step_and_error_apart(metrics):
    metrics.retry("write", StoreUnavailableError("a test"))
    metrics.retry("publish", PublishError("a test"))
    value = metrics.registry.get_sample_value
    assert value("everlong_retries_total", {"role": "ingest", "step": "write", "error": "StoreUnavailableError"}) == 1
    assert value("everlong_retries_total", {"role": "ingest", "step": "publish", "error": "PublishError"}) == 1


def test_latency_buckets_reach_from_5_ms_to_a_minute():
    metrics = RefreshMetrics()
    metrics.event_to_candidate.observe(0.004)
    metrics.event_to_candidate.observe(59)
    value = metrics.registry.get_sample_value
    assert value("everlong_event_to_candidate_seconds_bucket", {"le": "0.005"}) == 1
    assert value("everlong_event_to_candidate_seconds_bucket", {"le": "60.0"}) == 2


@pytest.mark.parametrize("kind", [CatalogueMetrics, RefreshMetrics])
def test_one_generation_at_a_time(kind):
    metrics = kind()
    metrics.bundle("g1")
    metrics.bundle("g2")
    value = metrics.registry.get_sample_value
    assert value("everlong_bundle_generation_info", {"generation": "g2"}) == 1
    assert value("everlong_bundle_generation_info", {"generation": "g1"}) is None


def test_the_build_is_shown(metrics):
    assert metrics.registry.get_sample_value("everlong_build_info", build()._asdict()) == 1
    assert build().version == "0.1.0"
    assert build().python.startswith("3.")


def test_lag_is_shown_of_the_partitions_that_are_ours(metrics):
    metrics.lags({("clicks", 0): 20_000, ("clicks", 1): 3})
    metrics.lags({("clicks", 1): 0, ("orders", 1): 5})
    shown = {tuple(sample.labels.values()): sample.value for sample in metrics.lag.collect()[0].samples}
    assert shown == {("clicks", "1"): 0, ("orders", "1"): 5}
    metrics.lags({})
    assert not metrics.lag.collect()[0].samples


def test_dead_letters_of_every_reason_are_shown_from_the_start(metrics):
    totals = [sample for sample in metrics.dead_letters.collect()[0].samples if sample.name.endswith("_total")]
    assert {sample.labels["reason"]: sample.value for sample in totals} == dict.fromkeys(Reason, 0)


def test_a_worker_serves_metrics_and_health(metrics, served):
    server, health = served
    base = f"http://127.0.0.1:{server.port}"
    assert json.load(urlopen(f"{base}/health/live")) == {"live": True, **ABOUT}
    with pytest.raises(HTTPError) as caught:
        urlopen(f"{base}/health/ready")
    assert caught.value.code == 503
    assert json.load(caught.value) == {"ready": False, "reasons": {"store": "not yet", "broker": "not yet"}, **ABOUT}
    assert "everlong_ready 0.0" in urlopen(f"{base}/metrics").read().decode()

    health.set_ready("store")
    health.set_ready("broker")
    assert json.load(urlopen(f"{base}/health/ready")) == {"ready": True, **ABOUT}
    assert "everlong_ready 1.0" in urlopen(f"{base}/metrics").read().decode()

    health.set_failed("partitions", "clicks 3 stands still for 61 s")
    with pytest.raises(HTTPError) as caught:
        urlopen(f"{base}/health/ready")
    assert json.load(caught.value)["reasons"] == {"partitions": "clicks 3 stands still for 61 s"}
    with pytest.raises(HTTPError) as caught:
        urlopen(f"{base}/etc/passwd")
    assert caught.value.code == 404
    caught.value.close()


def test_a_port_that_is_taken_is_an_error(metrics, served):
    with pytest.raises(OSError, match="in use"):
        serve_metrics(metrics, Health(), port=served[0].port)


def test_health_is_thread_safe():
    health = Health()

    def flip(name: str) -> None:
        for _ in range(500):
            health.set_failed(name, "down")
            health.reasons()
            health.set_ready(name)

    threads = [Thread(target=flip, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert health.ready

"""Metrics: what a process shows is what docs/metrics.md says, and the values are right."""

import json
import re
from threading import Thread
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from features.events import Reason
from infra.health import Health
from infra.metrics import Metrics, serve_metrics
from tests.beside import ROOT

PAGE = ROOT / "docs" / "metrics.md"
PARTS_OF_A_HISTOGRAM = {"le"}


@pytest.fixture
def metrics():
    return Metrics(CollectorRegistry())


@pytest.fixture
def served(metrics):
    health = Health("store", "broker")
    metrics.follow(health)
    server = serve_metrics(metrics.registry, health)
    yield server, health
    server.close()


def scraped(metrics: Metrics) -> dict[str, tuple[str, frozenset[str]]]:
    """Name, type and labels of every metric, after each has been used once."""
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase) and metric._labelnames:
            metric.labels(*("x" for _ in metric._labelnames))
    shown = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        if family.name.endswith("_created"):  # when a counter began, beside each
            continue
        samples = [frozenset(sample.labels) for sample in family.samples]
        labels = frozenset().union(*samples) - PARTS_OF_A_HISTOGRAM
        name = family.name + "_total" if family.type == "counter" else family.name
        shown[name] = family.type, labels
    return shown


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines() if line.startswith("| `everlong")
    ]
    assert all(len(row) == 5 and row[3] and row[4] for row in rows), "each metric needs a meaning and what to do"
    return {row[0].strip("`"): (row[1], frozenset(re.findall(r"`(\w+)`", row[2]))) for row in rows}


def test_the_page_lists_exactly_what_a_process_shows(metrics):
    assert documented() == scraped(metrics)


def test_no_label_names_a_user_or_an_item(metrics):
    assert {label for _, labels in scraped(metrics).values() for label in labels}.isdisjoint({"user", "user_id", "item", "item_id"})


def test_two_objects_do_not_meet(metrics):
    other = Metrics(CollectorRegistry())
    other.events.labels("clicks", "applied").inc()
    assert metrics.registry.get_sample_value("everlong_events_total", {"topic": "clicks", "outcome": "applied"}) is None


def test_a_batch_is_its_steps(metrics):
    metrics.batch("ingest", 200, {"decode": 0.004, "write": 0.016})
    value = metrics.registry.get_sample_value
    assert value("everlong_batch_seconds_sum", {"role": "ingest"}) == pytest.approx(0.02)
    assert value("everlong_step_seconds_sum", {"role": "ingest", "step": "write"}) == pytest.approx(0.016)
    assert value("everlong_step_seconds_bucket", {"role": "ingest", "step": "write", "le": "0.02"}) == 1
    assert value("everlong_step_seconds_bucket", {"role": "ingest", "step": "write", "le": "0.01"}) == 0
    assert value("everlong_batch_records_sum", {"role": "ingest"}) == 200


def test_latency_buckets_reach_from_5_ms_to_a_minute(metrics):
    metrics.event_to_candidate.observe(0.004)
    metrics.event_to_candidate.observe(59)
    value = metrics.registry.get_sample_value
    assert value("everlong_event_to_candidate_seconds_bucket", {"le": "0.005"}) == 1
    assert value("everlong_event_to_candidate_seconds_bucket", {"le": "60.0"}) == 2


def test_one_generation_at_a_time(metrics):
    metrics.bundle("g1")
    metrics.bundle("g2")
    value = metrics.registry.get_sample_value
    assert value("everlong_bundle_generation_info", {"generation": "g2"}) == 1
    assert value("everlong_bundle_generation_info", {"generation": "g1"}) is None


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
    assert json.load(urlopen(f"{base}/health/live")) == {"live": True}
    with pytest.raises(HTTPError) as caught:
        urlopen(f"{base}/health/ready")
    assert caught.value.code == 503
    assert json.load(caught.value)["reasons"] == {"store": "not yet", "broker": "not yet"}
    assert "everlong_ready 0.0" in urlopen(f"{base}/metrics").read().decode()

    health.set_ready("store")
    health.set_ready("broker")
    assert json.load(urlopen(f"{base}/health/ready")) == {"ready": True}
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
        serve_metrics(metrics.registry, Health(), port=served[0].port)


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

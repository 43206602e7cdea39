"""`everlong topics` on a real Kafka: what differs from what our promises need is named, and repaired."""

import json
from contextlib import closing

import pytest
from kafka.admin import KafkaAdminClient
from typer.testing import CliRunner

from infra.cli import make_app

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


@pytest.fixture
def run(kafka, prefix, tmp_path, monkeypatch):
    """Exit code and output of `everlong topics`."""
    for name, value in {"KAFKA_BOOTSTRAP": kafka.bootstrap, "TOPIC_PREFIX": prefix, "PARTITIONS": "2", "DATA_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(f"EVERLONG_{name}", value)

    def topics(*options):
        done = CliRunner().invoke(make_app(), ["topics", *options])
        return done.exit_code, done

    return topics


@pytest.mark.fault(
    "A topic with unsuitable retention, compaction or partitions",
    "`everlong topics` reports the difference, `--check` exits with 3, and `--repair` corrects what can be changed",
)
def test_differences_are_named_and_repaired(kafka, prefix, run):
    made = {
        "clicks": {"num_partitions": 2, "configs": {"retention.ms": "3600000", "retention.bytes": "1000000"}},
        "items": {"num_partitions": 1, "configs": {}},
    }
    with closing(KafkaAdminClient(**kafka.for_kafka_python())) as admin:
        admin.create_topics({prefix + name: {"replication_factor": 1, **wanted} for name, wanted in made.items()}, wait_for_metadata=True)

    code, done = run("--check", "--json")
    assert code == 3, done.output
    found = {topic["name"].removeprefix(prefix): topic for topic in json.loads(done.stdout)}
    assert {d["setting"]: (d["found"], d["needed"]) for d in found["clicks"]["differences"]} == {
        "retention.ms": ("3600000", "-1"),
        "retention.bytes": ("1000000", "-1"),
    }
    assert {d["setting"] for d in found["items"]["differences"]} == {"partitions", "cleanup.policy", "delete.retention.ms"}
    assert not found["queries"]["exists"]
    assert f"{prefix}clicks: retention.ms is 3600000, and must be -1: `everlong topics --repair` sets it" in done.stderr

    code, done = run("--repair", "--json")  # makes those that are missing too
    assert code == 0, done.output
    left = {topic["name"].removeprefix(prefix): topic["differences"] for topic in json.loads(done.stdout)}
    assert {name: [d["setting"] for d in found] for name, found in left.items() if found} == {"items": ["partitions"]}
    assert run("--check")[0] == 3

"""`everlong dlq` on a real (embedded) broker: listed, shown and sent again with original bytes, key and time."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaConsumer, KafkaProducer
from typer.testing import CliRunner

from infra.cli import make_app
from infra.local import embedded
from infra.local.processes import Supervisor
from stream.connection import Connection
from stream.dead_letters import CutDeadLetter, NoSuchDeadLetter, Place, Wanted, find, read
from stream.messages import DeadLetter

LETTERS = [
    DeadLetter(topic="clicks", partition=0, offset=7, reason="bad_json", detail="cut short", key=b"u1", value=b"\xff{", ts=1000),
    DeadLetter(topic="orders", partition=1, offset=8, reason="empty", detail="no value", key=b"u2", value=None, ts=2000),
    DeadLetter(topic="orders", partition=1, offset=9, reason="empty", detail="no value, no key", key=None, value=None, ts=3000),
    DeadLetter(topic="clicks", partition=2, offset=4, reason="oversized", detail="9 bytes", key=b"u", value=b"12", ts=4000, cut_bytes=7),
]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("broker")
    with Supervisor(folder / "logs") as supervisor:
        bootstrap = embedded.start_broker(supervisor, folder).bootstrap
        producer = KafkaProducer(bootstrap_servers=bootstrap)
        producer.send("events.dlq", b"not one of ours").get(10)
        for letter in LETTERS:
            producer.send("events.dlq", msgspec.json.encode(letter)).get(10)
        producer.close()
        yield bootstrap


@pytest.fixture(autouse=True)
def named(broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLONG_KAFKA_BOOTSTRAP", broker)
    monkeypatch.setenv("EVERLONG_DATA_DIR", str(tmp_path))


def run(*arguments: str) -> dict:
    done = CliRunner().invoke(make_app(), ["dlq", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_list_filters_and_show(broker: str) -> None:
    found = run("list")
    assert found["total"] == 4
    assert found["dead_letters"][-1]["offset"] in (7, 8, 9)
    assert run("list", "--topic", "orders", "--reason", "empty", "--limit", "1")["total"] == 2
    assert len(run("list", "--limit", "1")["dead_letters"]) == 1
    first = run("list", "--reason", "bad_json")["dead_letters"][0]
    shown = run("show", first["place"])
    assert (shown["key"], shown["value"], shown["detail"]) == ("dTE=", "/3s=", "cut short")


def test_replay_sends_the_original_and_leaves_out_what_is_cut(broker: str) -> None:
    [cut] = run("list", "--reason", "oversized")["dead_letters"]
    assert (cut["bytes"], cut["cut_bytes"]) == (2, 7)
    with pytest.raises(CutDeadLetter, match=r"clicks 2:4 .* 7 bytes"):
        CliRunner().invoke(make_app(), ["dlq", "replay", cut["place"]], catch_exceptions=False)
    assert run("replay", "--topic", "clicks") == {"sent": 1, "left_out": [cut["place"]]}
    assert run("replay", "--topic", "orders") == {"sent": 2, "left_out": []}
    consumer = KafkaConsumer("clicks", "orders", bootstrap_servers=broker, auto_offset_reset="earliest", consumer_timeout_ms=3000)
    records = sorted(((r.topic, r.key, r.value, r.timestamp) for r in consumer), key=lambda r: r[3])
    consumer.close()
    assert records[0] == ("clicks", b"u1", b"\xff{", 1000)
    assert records[1] == ("orders", b"u2", None, 2000)
    assert records[2][0] == "orders"
    assert len(records) == 3


def test_unknown_places_are_refused(broker: str) -> None:
    connection = Connection(bootstrap=broker)
    with pytest.raises(NoSuchDeadLetter, match="dlq list"):
        find(connection, "events.dlq", Place(0, 99))
    with pytest.raises(NoSuchDeadLetter):
        find(connection, "events.dlq", Place(0, 0))  # there lies a record that is no dead letter
    with pytest.raises(ValueError, match="partition:offset"):
        Place.parse("7")
    assert list(read(connection, "no-such-topic", Wanted())) == []

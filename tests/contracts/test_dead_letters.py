"""`everlong dlq` on a real (embedded) broker: listed, shown and sent again with original bytes, key and time."""

import json
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord
from msgspec.structs import replace
from typer.testing import CliRunner

from infra.cli import make_app
from infra.local import embedded
from infra.local.processes import Supervisor
from stream.errors import NoSuchDeadLetterError, TruncatedDeadLetterError
from stream.kafka.admin import count_partitions, create_topics
from stream.kafka.connection import Connection
from stream.kafka.messages import DeadLetter
from stream.kafka.topics import partition_of
from stream.pipelines.dead_letters import LetterFilter, LetterPlace, find, read, replay

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
        create_topics(Connection(bootstrap=bootstrap), "", partitions=1, replication=1)  # a topic made otherwise drops old records
        producer = KafkaProducer(bootstrap_servers=bootstrap)
        for value in (b"not one of ours", b'{"topic":"\xff"}', b'{"more":' + b"[" * 5000, b"", None, b'{"offset":1' + b"0" * 5000):
            producer.send("events.dlq", value, key=b"k").get(10)
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


def received(broker: str, count: int, *topics: str) -> list[ConsumerRecord]:
    with closing(KafkaConsumer(*topics, bootstrap_servers=broker, auto_offset_reset="earliest", consumer_timeout_ms=30_000)) as consumer:
        return list(islice(consumer, count))


@pytest.mark.fault("An invalid record on `events.dlq`: bad UTF-8, deep nesting, no value", "`everlong dlq` omits it")
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
    with pytest.raises(TruncatedDeadLetterError, match=r"clicks 2:4 .* 7 bytes"):
        CliRunner().invoke(make_app(), ["dlq", "replay", cut["place"]], catch_exceptions=False)
    assert run("replay", "--topic", "clicks") == {"sent": 1, "left_out": [cut["place"]]}
    assert run("replay", "--topic", "orders") == {"sent": 2, "left_out": []}
    records = sorted(((r.topic, r.key, r.value, r.timestamp) for r in received(broker, 3, "clicks", "orders")), key=lambda r: r[3])
    assert records[0] == ("clicks", b"u1", b"\xff{", 1000)
    assert records[1] == ("orders", b"u2", None, 2000)
    assert records[2][0] == "orders"


def test_replay_chooses_the_partition_by_the_key_and_not_where_the_letter_lay(broker: str) -> None:
    connection = Connection(bootstrap=broker)
    create_topics(connection, "four.", partitions=4, replication=1)
    assert count_partitions(connection, "four.clicks") == 4
    keys = [f"u{n}".encode() for n in range(12)]
    wrong = {key: (partition_of(key, 4) + 1) % 4 for key in keys}
    letters = [replace(LETTERS[0], topic="four.clicks", partition=at, reason="wrong_partition", key=key) for key, at in wrong.items()]
    assert replay(connection, letters, 1) == len(keys)
    found = {record.key: record.partition for record in received(broker, len(keys), "four.clicks")}
    assert found == {key: partition_of(key, 4) for key in keys}


def test_unknown_places_are_refused(broker: str) -> None:
    connection = Connection(bootstrap=broker)
    with pytest.raises(NoSuchDeadLetterError, match="dlq list"):
        find(connection, "events.dlq", LetterPlace(0, 99))
    with pytest.raises(NoSuchDeadLetterError):
        find(connection, "events.dlq", LetterPlace(0, 0))  # there lies a record that is no dead letter
    with pytest.raises(ValueError, match="partition:offset"):
        LetterPlace.parse("7")
    assert list(read(connection, "no-such-topic", LetterFilter())) == []

"""The embedded broker's log stays small, and no worker misses a record because of it."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata
from typer.testing import CliRunner

from infra.cli import make_app
from infra.errors import LogFullError
from infra.http import server
from infra.local import embedded, running, trimming
from infra.local.feed import Feed
from infra.local.processes import Supervisor
from stream.kafka.admin import alter_topic, create_topics
from stream.kafka.bounded_log import BoundedLog, Bounds
from stream.kafka.connection import Connection
from stream.kafka.producer import Outbound, Outgoing
from stream.kafka.topics import CANDIDATES, CLICKS, DEAD_LETTERS, ITEMS, ORDERS, QUERIES, REFRESH

KB = 1 << 10
GROUP = "everlong"
SMALL = Bounds(
    applied={CLICKS: ("ingest", 64 * KB), QUERIES: ("ingest", 64 * KB), ORDERS: ("ingest", 64 * KB), REFRESH: ("refresh", 64 * KB)},
    retained={CANDIDATES: 64 * KB, DEAD_LETTERS: 64 * KB},
    segment=16 * KB,
)
RECORDS, SIZE, USERS, ROUNDS = 1500, 1 * KB, 30, 50


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Connection]:
    with Supervisor(tmp_path / "logs") as supervisor:
        connection = Connection(bootstrap=embedded.start_broker(supervisor, tmp_path).bootstrap)
        create_topics(connection, "", 2, 1)
        yield connection


def publish(connection: Connection, records: list[Outgoing], at_once: int = 100) -> None:
    async def send() -> None:
        outbound = Outbound(connection)
        for start in range(0, len(records), at_once):
            await outbound.publish(records[start : start + at_once])
        await outbound.stop()

    asyncio.run(send())


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


class Reader:
    """A worker's group: takes records and commits what it took."""

    def __init__(self, connection: Connection, role: str, topic: str) -> None:
        self.places = [TopicPartition(topic, number) for number in range(2)]
        self.consumer = KafkaConsumer(
            **connection.for_kafka_python(), group_id=f"{GROUP}-{role}", enable_auto_commit=False, auto_offset_reset="earliest"
        )
        self.consumer.assign(self.places)
        self.seen: list[bytes] = []

    def close(self) -> None:
        self.consumer.close()

    def take(self, count: int) -> None:
        end = len(self.seen) + count
        while len(self.seen) < end:
            for records in self.consumer.poll(500, max_records=end - len(self.seen)).values():
                self.seen += [record.value for record in records]
        self.consumer.commit({place: OffsetAndMetadata(self.consumer.position(place), "", -1) for place in self.places})


def held(connection: Connection, topic: str) -> list[tuple[bytes, bytes | None]]:
    """Key and value of each record that is there, each partition's in order."""
    with closing(KafkaConsumer(**connection.for_kafka_python(), auto_offset_reset="earliest")) as consumer:
        places = [TopicPartition(topic, number) for number in range(2)]
        consumer.assign(places)
        consumer.seek_to_beginning()
        ends, found = consumer.end_offsets(places), []
        while any(consumer.position(place) < ends[place] for place in places):
            for records in consumer.poll(500).values():
                found += [(record.key, record.value) for record in records]
        return found


@pytest.mark.fault(
    "Days of events on the embedded broker, which holds its log in memory",
    "Applied records are deleted, compacted topics keep the newest record of each key, and unapplied records are kept",
)
def test_the_log_stays_small_and_no_reader_misses_a_record(broker: Connection, tmp_path: Path) -> None:
    file = tmp_path / "broker" / "kafka.json"
    clicks = [Outgoing(CLICKS.name, f"user-{n % USERS}".encode(), str(n).encode().ljust(SIZE, b".")) for n in range(RECORDS)]
    states = [
        Outgoing(topic.name, f"{key}".encode(), None if topic is ITEMS and (key + turn) % 7 == 0 else f"{turn}".encode().ljust(SIZE, b"."))
        for topic in (ITEMS, CANDIDATES)
        for turn in range(ROUNDS)
        for key in range(USERS)
    ]
    with closing(BoundedLog(broker, "", GROUP, SMALL)) as log, closing(Reader(broker, "ingest", CLICKS.name)) as reader:
        log.configure()
        publish(broker, clicks + states)
        assert log.trim() > RECORDS * SIZE  # nothing is applied
        assert len(held(broker, CLICKS.name)) == RECORDS
        reader.take(RECORDS // 3)
        waiting = log.trim()
        assert 0.6 * RECORDS * SIZE < waiting < 0.75 * RECORDS * SIZE
        assert len(held(broker, CLICKS.name)) < RECORDS
        reader.take(RECORDS - RECORDS // 3)
        assert sorted(reader.seen) == sorted(click.value for click in clicks if click.value)
        assert log.trim() == 0
        log.trim()
        newest = held(broker, CLICKS.name)
    assert 20 < len(newest) < 100
    kept = {value for _, value in newest}
    assert {click.value for click in clicks[-10:]} <= kept
    wait_until(lambda: len(held(broker, ITEMS.name)) < 200 and len(held(broker, CANDIDATES.name)) < 200)
    last = {state.key: state.value for state in states if state.topic == ITEMS.name}
    assert dict(held(broker, ITEMS.name)) == last
    assert None in last.values()

    def small() -> bool:
        publish(broker, [Outgoing(REFRESH.name, b"user", b".")])  # the broker writes its file after records, not after compaction
        return file.stat().st_size < 2_500_000  # of 12 MB that were sent, as the file has them

    wait_until(small)


@pytest.mark.fault(
    "More events on the embedded broker than the workers can process",
    "The shop and replays wait for the workers, and the command stops with an error before the broker uses too much memory",
)
def test_a_producer_waits_for_workers_that_are_behind(broker: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"ROOM_BYTES": 100 * KB, "FULL_BYTES": 200 * KB, "CHECK_BYTES": 10 * KB, "PATIENCE_S": 0.5, "EVERY_S": 0.05}
    for name, value in small.items():
        monkeypatch.setattr(trimming, name, value)

    def open_log() -> BoundedLog:
        return BoundedLog(broker, "", GROUP, SMALL)

    async def feed(count: int) -> Counter[str]:
        async with Feed(broker, room=trimming.Room(open_log)) as feeding:
            for _ in range(count // 20):
                await feeding.publish([(CLICKS.name, b"user", b"." * SIZE, None, None)] * 20)
            return feeding.sent

    publish(broker, [Outgoing(CLICKS.name, b"user", b"." * SIZE) for _ in range(300)], at_once=5)
    trimmer = trimming.Trimmer(open_log)
    trimmer.start()
    with closing(Reader(broker, "ingest", CLICKS.name)) as reader:
        with pytest.raises(LogFullError, match="wait for the workers: they applied nothing"):
            asyncio.run(feed(100))
        with pytest.raises(LogFullError, match="MB of records in the embedded broker wait"):
            wait_until(lambda: trimmer.check() is not None, 10.0)
        reader.take(250)
        assert asyncio.run(feed(40)) == {CLICKS.name: 40}
        reader.take(90)
    trimmer.stop()


def test_a_trimmed_log_goes_on_after_a_restart(tmp_path: Path) -> None:
    seen: list[bytes] = []
    for turn, count in enumerate((250, 350)):
        with Supervisor(tmp_path / "logs") as supervisor:
            started = embedded.start_broker(supervisor, tmp_path)
            broker = Connection(bootstrap=started.bootstrap)
            assert started.fresh == (turn == 0)
            create_topics(broker, "", 2, 1)
            with closing(BoundedLog(broker, "", GROUP, SMALL)) as log, closing(Reader(broker, "ingest", CLICKS.name)) as reader:
                log.configure()
                publish(broker, [Outgoing(CLICKS.name, str(n).encode(), f"{turn}-{n}".encode().ljust(SIZE)) for n in range(300)])
                reader.take(count)
                seen += reader.seen
                log.trim()
                assert len(held(broker, CLICKS.name)) < 200
            embedded.close_broker(supervisor, tmp_path)
    assert sorted(value.strip() for value in seen) == sorted(f"{turn}-{n}".encode() for turn in range(2) for n in range(300))


def test_the_recent_users_are_found_without_reading_every_candidate_set(broker: Connection) -> None:
    noted: list[bytes | None] = []

    class Noting(server.RecentUsers):
        def _note(self, key: bytes | None, published_ms: int) -> None:
            noted.append(key)
            super()._note(key, published_ms)

    def reads() -> bool:
        publish(broker, [Outgoing(CANDIDATES.name, b"first", b".")])
        return bool(noted)

    recent = Noting(broker, CANDIDATES.name)
    recent.start()
    wait_until(reads)
    publish(broker, [Outgoing(CANDIDATES.name, f"user-{n}".encode(), b".") for n in range(2000)])
    last = {f"user-{n}" for n in range(1900, 2000)}
    wait_until(lambda: len(recent.newest()) == server.SHOWN_USERS and last.issuperset(recent.newest()))
    recent.stop()
    assert len(noted) < 1000


def test_topics_takes_bounds_of_the_embedded_broker_as_they_must_be(
    broker: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERLONG_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("EVERLONG_PARTITIONS", "2")
    with closing(BoundedLog(broker, "", GROUP)) as log:
        log.configure()
    up = running.Running(
        pid=running.own_pid(), began=running.began(), bootstrap=broker.bootstrap, store_url="", epoch=1, bundle="", own_broker=True
    )
    running.note(tmp_path, up)
    right = CliRunner().invoke(make_app(), ["topics", "--check"])
    assert (right.exit_code, right.stderr) == (0, "")
    alter_topic(broker, "candidates", {"cleanup.policy": "delete"})
    wrong = CliRunner().invoke(make_app(), ["topics", "--check"])
    assert (wrong.exit_code, wrong.stderr.count("must be")) == (3, 1)
    assert "candidates: cleanup.policy is delete, and must be compact,delete" in wrong.stderr

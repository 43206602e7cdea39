"""Kafka and Valkey as a user runs them, by testcontainers: two settings, and an ingest worker writes the rows there."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest

from features.apply import apply
from features.codec import pack
from features.events import Click, Event, Query, Topic, encode, key_of
from features.rows import UserRow, behaviours, search
from features.store import Key, LogPosition, OnlineStore, Stored
from features.store.opening import open_store
from features.table import USER, USER_CATEGORY
from stream.kafka.connection import Connection
from stream.kafka.producer import Outbound, Outgoing
from tests.containers.conftest import free_port, images

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def valkey(engine: None) -> Iterator[str]:
    """URL of a Valkey server in a container."""
    from testcontainers.core.container import DockerContainer

    port = free_port()
    with DockerContainer(images()["VALKEY_IMAGE"]).with_bind_ports(6379, port):
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="module")
def kafka(engine: None) -> Iterator[str]:
    """Address of a Kafka broker in a container."""
    from testcontainers.core.container import DockerContainer

    port = free_port()
    settings = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://localhost:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }
    container = DockerContainer(images()["KAFKA_IMAGE"]).with_bind_ports(9092, port)
    for name, value in settings.items():
        container = container.with_env(name, value)
    with container:
        _wait_for_broker(f"127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"


def _wait_for_broker(bootstrap: str) -> None:
    from kafka import KafkaAdminClient

    end = monotonic() + 60
    while True:
        try:
            admin = KafkaAdminClient(bootstrap_servers=bootstrap)
            admin.list_topics()
            admin.close()
            return
        except Exception:  # still starting; kafka-python has many ways to say so
            if monotonic() > end:
                raise
            sleep(0.5)


@pytest.fixture
def store(valkey: str) -> Iterator[OnlineStore]:
    """The online store in the container."""
    opened = open_store(valkey)
    end = monotonic() + 30
    while True:
        try:
            opened.read([Key(USER.name, ("nobody",))])
            break
        except Exception:
            if monotonic() > end:
                raise
            sleep(0.2)
    yield opened
    opened.close()


def test_the_store_refuses_an_older_row(store: OnlineStore) -> None:
    key = Key(USER.name, ("contract",))
    newer, older = (Stored(pack(UserRow()), LogPosition(0, clicks), 1) for clicks in (7, 6))
    assert store.write([(key, newer)]) == [True]
    assert store.write([(key, older)]) == [False]
    assert store.write([(key, newer)]) == [True]
    assert store.read([key]) == [newer]


def test_an_ingest_worker_writes_the_rows_that_the_events_give(kafka: str, valkey: str, store: OnlineStore, tmp_path: Path) -> None:
    now = time.time_ns() // 1_000_000
    events = _events(now)
    env = os.environ | {"EVERLONG_KAFKA_BOOTSTRAP": kafka, "EVERLONG_STORE_URL": valkey, "EVERLONG_DATA_DIR": str(tmp_path)}
    _everlong(env, "topics")
    with _worker(env, tmp_path / "ingest.log") as worker:
        asyncio.run(_publish(kafka, events))
        for user in {event.user_id for event in (*events[Topic.CLICKS], *events[Topic.QUERIES])}:
            _wait_for_rows(store, user, events, worker, tmp_path / "ingest.log")


def _events(now: int) -> dict[Topic, list[Event]]:
    users = [f"user-{n}" for n in range(8)]
    queries: list[Event] = [
        Query(event_id=f"q-{user}-{n}", user_id=user, query_id=f"q{n}", text=f"red shoes {n}", ts=now - 60_000 * (50 - n))
        for user in users
        for n in range(0, 50, 5)
    ]
    clicks: list[Event] = [
        Click(event_id=f"c-{user}-{n}", user_id=user, item_id=f"item-{n}", category_id=f"cat-{n % 3}", ts=now - 60_000 * (50 - n) + 1000)
        for user in users
        for n in range(50)
    ]
    return {Topic.CLICKS: clicks, Topic.QUERIES: queries}


async def _publish(bootstrap: str, events: dict[Topic, list[Event]]) -> None:
    outbound = Outbound(Connection(bootstrap=bootstrap))
    await outbound.start()
    try:
        await outbound.publish([Outgoing(topic, key_of(event), encode(event), event.ts) for topic, of in events.items() for event in of])
    finally:
        await outbound.stop()


def _wait_for_rows(store: OnlineStore, user: str, events: dict[Topic, list[Event]], worker: subprocess.Popen[bytes], log: Path) -> None:
    """Until the rows of a user are, byte for byte, those that the events give offline."""
    mine = {topic: [event for event in of if key_of(event) == user.encode()] for topic, of in events.items()}
    done = [one for event in mine[Topic.CLICKS] if isinstance(event, Click) for one in behaviours(event)]
    asked = [search(event) for event in mine[Topic.QUERIES] if isinstance(event, Query)]
    wanted = apply(UserRow(), {}, done, asked)
    rows = {Key(USER.name, (user,)): pack(wanted.user)}
    rows |= {Key(USER_CATEGORY.name, (user, name)): pack(row) for name, row in wanted.categories.items()}
    end = monotonic() + 90
    while [None if found is None else found.packed for found in store.read(list(rows))] != list(rows.values()):
        assert worker.poll() is None, log.read_text()[-3000:]
        assert monotonic() < end, f"the rows of {user} are not those of its events\n{log.read_text()[-3000:]}"
        sleep(0.2)


def _everlong(env: dict[str, str], *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "infra.cli", *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def _worker(env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "infra.cli", "worker", "ingest"], env=env, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

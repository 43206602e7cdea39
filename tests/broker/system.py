"""The system as a test drives it: worker processes over a given broker and an embedded Valkey, and what they must end in."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from features.codec import pack
from features.events import Event
from features.history import offline_rows
from features.store import Key, OnlineStore
from features.store.opening import open_store
from infra.clock import wall_ms
from infra.local import embedded
from infra.local.accounts import Accounts, Balance, unanswered
from infra.local.processes import Supervisor
from infra.scraping import Samples, scrape
from stream.kafka.admin import create_topics
from stream.kafka.connection import Connection
from stream.kafka.producer import Outbound, Outgoing
from stream.kafka.topics import BEHAVIOUR, prefixed
from stream.pipelines.replay import Publish, record


class Worker:
    """A process `everlong worker ROLE`, its output in a file, that can be killed and started again."""

    def __init__(self, role: str, folder: Path, name: str, **settings: object) -> None:
        self._role, self._log = role, folder / f"{name}.log"
        self._environment = os.environ | {f"EVERLONG_{key.upper()}": str(value) for key, value in settings.items()}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Worker":
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "infra.cli", "worker", self._role], env=self._environment, stdout=log, stderr=log
            )
        return self

    def kill(self) -> None:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=120)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """The URL of an embedded store that ends with the test."""
    supervisor = Supervisor(folder / "logs")
    try:
        yield embedded.start_store(supervisor, folder, persist=False)
    finally:
        supervisor.stop()


def ends(connection: Connection, prefix: str) -> dict[TopicPartition, int]:
    """The ends of all partitions of clicks, queries and orders."""
    consumer = KafkaConsumer(**connection.for_kafka_python())
    try:
        names = [prefixed(prefix, spec) for spec in BEHAVIOUR]
        partitions = [TopicPartition(name, number) for name in names for number in consumer.partitions_for_topic(name) or ()]
        return consumer.end_offsets(partitions)
    finally:
        consumer.close()


def lag(connection: Connection, group: str, upto: dict[TopicPartition, int]) -> int:
    """Records below `upto` that the group has not committed."""
    admin = KafkaAdminClient(**connection.for_kafka_python())
    try:
        committed = admin.list_group_offsets(group)[group]
        places = {partition: found.offset for partition, found in committed.items()}
        return sum(max(0, end - max(0, places.get(partition, 0))) for partition, end in upto.items())
    finally:
        admin.close()


def wait_for(holds: Callable[[], bool], seconds: float, what: str, log: Callable[[], str] = str, poll_s: float = 0.2) -> float:
    """Wait until something holds; gives the seconds that it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"after {seconds} s still waiting for {what}\n{log()}"
        time.sleep(poll_s)
    return time.monotonic() - began


def ready(port: int) -> bool:
    """Whether the process that serves health on the port says that it is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def differing(store: OnlineStore, events: Iterable[Event]) -> tuple[int, list[Key]]:
    """How many rows the events must have made, and the keys of those that the store holds otherwise, byte for byte."""
    users, categories = offline_rows(events)
    expected = {Key("user", (user,)): pack(row) for user, row in users.items()}
    expected |= {Key("user_category", pair): pack(row) for pair, row in categories.items()}
    keys = list(expected)
    wrong = []
    for at in range(0, len(keys), 2000):
        part: Sequence[Key] = keys[at : at + 2000]
        found = store.read(part)
        wrong += [key for key, row in zip(part, found, strict=True) if row is None or row.packed != expected[key]]
    return len(keys), wrong


class System:
    """Workers of some roles over a broker and a store of their own, and the accounts of what was sent to them."""

    def __init__(self, connection: Connection, prefix: str, folder: Path, url: str, roles: Sequence[str], **settings: object) -> None:
        create_topics(connection, prefix, partitions=4, replication=1)
        self.connection, self.prefix, self.url = connection, prefix, url
        self.store = open_store(url)
        self.since_ms = wall_ms()
        self.ports = {role: embedded.free_port() for role in roles}
        common = {"kafka_bootstrap": connection.bootstrap, "store_url": url, "topic_prefix": prefix, "http_host": "127.0.0.1", **settings}
        self.workers = {role: Worker(role, folder, role, **common, metrics_port=port) for role, port in self.ports.items()}
        self.accounts = Accounts(self.ports.values())

    def start(self) -> None:
        """Start all workers and wait until they are ready."""
        for worker in self.workers.values():
            worker.start()
        for role, port in self.ports.items():
            wait_for(lambda port=port: ready(port), 90, f"the {role} worker", self.workers[role].log)

    def samples(self) -> Samples:
        """What the workers' metrics say now."""
        return scrape(self.ports.values())

    def samples_of(self, role: str) -> Samples:
        """What the metrics of one worker say now."""
        return scrape([self.ports[role]])

    def send(self, events: Sequence[Event]) -> None:
        """Publish events in this order, and put them into the accounts."""
        self.send_by(lambda publish: self._send(events, publish))

    def send_by(self, sending: Callable[[Publish], Awaitable[object]]) -> None:
        """Let `sending` publish, and put it into the accounts."""

        async def main() -> None:
            outbound = Outbound(self.connection, give_up_after_s=60)

            async def publish(records: list[Outgoing]) -> None:
                await outbound.publish(records)
                self.accounts.sent.update(record.topic.removeprefix(self.prefix) for record in records)

            try:
                await sending(publish)
            finally:
                await outbound.stop()

        asyncio.run(main())

    async def _send(self, events: Sequence[Event], publish: Publish) -> None:
        for at in range(0, len(events), 1000):
            await publish([record(event, wall_ms(), self.prefix) for event in events[at : at + 1000]])

    def settle(self, seconds: float = 120) -> Balance:
        """Wait until all that was sent has been dealt with; the accounts then."""
        wait_for(lambda: self.accounts.look().lag <= 0, seconds, f"{self.accounts.look().lag} records", self.logs)
        return self.accounts.look()

    def answered(self, users: Sequence[str], seconds: float = 120) -> None:
        """Wait until each user has a candidate set that answers the newest state of the user's row."""
        wait_for(lambda: not unanswered(self.store, users), seconds, "candidates of every user", self.logs)

    def logs(self) -> str:
        return "\n".join(worker.log() for worker in self.workers.values())

    def stop(self) -> None:
        """Stop all workers; each must end in peace."""
        assert {role: worker.stop() for role, worker in self.workers.items()} == dict.fromkeys(self.workers, 0)


@contextmanager
def running(connection: Connection, prefix: str, folder: Path, *roles: str, **settings: object) -> Iterator[System]:
    """A system that runs inside; nothing of it is left."""
    folder.mkdir(parents=True, exist_ok=True)
    with valkey(folder) as url:
        system = System(connection, prefix, folder, url, roles, **settings)
        try:
            system.start()
            yield system
            system.stop()
        finally:
            for worker in system.workers.values():
                worker.end()
            system.store.close()

"""The system as a test drives it: worker processes over a given broker and an embedded Valkey, and what they must end in."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from features.codec import pack
from features.events import Event
from features.history import offline_rows
from features.store import Key, OnlineStore
from infra import embedded
from infra.processes import Supervisor
from stream.connection import Connection
from stream.topics import BEHAVIOUR, prefixed


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
        return self.process.wait(timeout=40)

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

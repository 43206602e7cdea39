"""Making the topics, and waiting for a broker. Blocking calls, for commands and tests, not for workers."""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError

from stream.connection import Connection
from stream.topics import ALL, BEHAVIOUR, TopicSpec, prefixed

TOMBSTONES_MS = 100 * 365 * 86_400_000  # not the largest number: Kafka adds it to the clock


class BrokerUnavailable(Exception):
    """No broker answered in time."""

    def __init__(self, connection: Connection, timeout_s: float, last: object) -> None:
        super().__init__(
            f"no Kafka broker answered at {connection.bootstrap} within {timeout_s:.0f} s ({last}); check EVERLONG_KAFKA_BOOTSTRAP, "
            "the security settings and that the broker is up"
        )


class TopicsDisagree(Exception):
    """Topics that exist do not fit each other: one user's clicks, queries and orders would not meet in one partition."""

    def __init__(self, found: dict[str, int], wanted: int) -> None:
        listed = ", ".join(f"{name}: {partitions}" for name, partitions in sorted(found.items()))
        super().__init__(
            f"clicks, queries and orders must have the same number of partitions, but there are {listed} and {wanted} are wanted; set "
            "EVERLONG_PARTITIONS to that number if it is the same for all, else delete these topics or choose another "
            "EVERLONG_TOPIC_PREFIX, then replay the events"
        )
        self.found = found
        self.wanted = wanted


def wait_for_broker(connection: Connection, timeout_s: float) -> None:
    """Return as soon as a broker answers.

    Raises:
        BrokerUnavailable: none did within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if not _any_listens(connection):
                raise OSError("no port is open")
            with _admin(connection, max(0.5, min(5.0, deadline - time.monotonic()))) as admin:
                admin.list_topics()
            return
        except (KafkaError, OSError) as error:
            if time.monotonic() >= deadline:
                raise BrokerUnavailable(connection, timeout_s, repr(error)) from error
        time.sleep(0.1)


def create_topics(connection: Connection, prefix: str, partitions: int, replication: int, topics: Sequence[TopicSpec] = ALL) -> list[str]:
    """Make those of our topics that are not there, and return their names. Doing it again changes nothing.

    Topics that exist stay as they are. Works against Apache Kafka and noida-db alike.

    Raises:
        TopicsDisagree: behaviour topics that exist have another number of partitions.
        BrokerUnavailable: no broker answered within 30 s.
    """
    wait_for_broker(connection, 30)
    with _admin(connection, 30) as admin:
        existing = _partitions(admin, [prefixed(prefix, topic) for topic in topics])
        behaviour = {name: count for topic in BEHAVIOUR if (count := existing.get(name := prefixed(prefix, topic))) is not None}
        if any(count != partitions for count in behaviour.values()):
            raise TopicsDisagree(behaviour, partitions)
        missing = [topic for topic in topics if prefixed(prefix, topic) not in existing]
        for topic in missing:
            _create(admin, topic, prefixed(prefix, topic), topic.partitions or partitions, replication)
        _wait_until_there(admin, [prefixed(prefix, topic) for topic in missing])
    return [prefixed(prefix, topic) for topic in missing]


def count_partitions(connection: Connection, name: str) -> int:
    """How many partitions a topic has; `name` is the broker's.

    Raises:
        KeyError: there is no such topic.
        KafkaError: no broker answered.
    """
    with _admin(connection, 30) as admin:
        return _partitions(admin, [name])[name]


@contextmanager
def _admin(connection: Connection, timeout_s: float) -> Iterator[KafkaAdminClient]:
    timeout_ms = int(timeout_s * 1000)
    client = KafkaAdminClient(**connection.for_kafka_python(), request_timeout_ms=timeout_ms, bootstrap_timeout_ms=timeout_ms)
    try:
        yield client
    finally:
        client.close()


def _any_listens(connection: Connection) -> bool:
    """Whether any of the brokers' ports is open: asked first, as Kafka's client waits long and complains loudly."""
    for server in connection.servers:
        host, _, port = server.rpartition(":")
        with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), 1):
            return True
    return False


def _partitions(admin: KafkaAdminClient, names: list[str]) -> dict[str, int]:
    there = set(admin.list_topics())
    return {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics([name for name in names if name in there] or [])}


def _settings(topic: TopicSpec) -> dict[str, str]:
    if topic.compacted:  # a deletion must be read by whoever starts later, with a bundle that still holds the item
        return {"cleanup.policy": "compact", "delete.retention.ms": str(TOMBSTONES_MS)}
    return {"cleanup.policy": "delete", "retention.ms": str(topic.retention_ms)}


def _create(admin: KafkaAdminClient, topic: TopicSpec, name: str, partitions: int, replication: int) -> None:
    wanted = {"num_partitions": partitions, "replication_factor": replication}
    try:
        admin.create_topics({name: {**wanted, "configs": _settings(topic)}})
    except TopicAlreadyExistsError:
        return  # another process was faster


def _wait_until_there(admin: KafkaAdminClient, names: list[str]) -> None:
    deadline = time.monotonic() + 10
    while names and time.monotonic() < deadline:
        try:
            described = admin.describe_topics(names)
        except UnknownTopicOrPartitionError:
            described = []
        if len(described) == len(names) and all(p["leader_id"] >= 0 for topic in described for p in topic["partitions"]):
            return
        time.sleep(0.05)

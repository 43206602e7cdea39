"""Creating the topics, and waiting for a broker. The calls block."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, MemberToRemove
from kafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError

from stream.errors import BrokerRefusedError, BrokerUnavailableError, NotAuthorizedError, PartitionCountError
from stream.kafka.access import authorized, described, greet
from stream.kafka.connection import Connection
from stream.kafka.promised import TopicState, settings
from stream.kafka.topics import ALL, BEHAVIOUR, TopicSpec, prefixed


def wait_for_broker(connection: Connection, timeout_s: float) -> None:
    """Return as soon as a broker answers.

    Raises:
        BrokerRefusedError: one refused us, twice within a second.
        BrokerUnavailableError: none answered within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    refused = False
    while True:
        try:
            greet(connection)
            return
        except BrokerRefusedError:
            if refused:
                raise
            refused = True
            time.sleep(0.4)  # a broker that is starting may not know its users yet
        except OSError as error:
            if time.monotonic() >= deadline:
                raise BrokerUnavailableError(connection.bootstrap, timeout_s, str(error)) from error
        time.sleep(0.1)


def create_topics(connection: Connection, prefix: str, partitions: int, replication: int, topics: Sequence[TopicSpec] = ALL) -> list[str]:
    """Create our missing topics, and return their names. Idempotent.

    Topics that exist stay as they are. Works against Apache Kafka and noida-db alike.

    Raises:
        PartitionCountError: behaviour topics that exist have another number of partitions.
        BrokerUnavailableError: no broker answered within 30 s.
        BrokerRefusedError: we are not let in, or may not describe or create one of them.
    """
    wait_for_broker(connection, 30)
    with _admin(connection, 30) as admin:
        existing = _partitions(connection, admin, [prefixed(prefix, topic) for topic in topics])
        behaviour = {name: count for topic in BEHAVIOUR if (count := existing.get(name := prefixed(prefix, topic))) is not None}
        if any(count != partitions for count in behaviour.values()):
            raise PartitionCountError(behaviour, partitions)
        missing = [topic for topic in topics if prefixed(prefix, topic) not in existing]
        for topic in missing:
            with authorized(connection, f"create topic {prefixed(prefix, topic)}"):
                _create(admin, topic, prefixed(prefix, topic), topic.partitions or partitions, replication)
        _wait_until_there(admin, [prefixed(prefix, topic) for topic in missing])
    return [prefixed(prefix, topic) for topic in missing]


def standings(connection: Connection, names: Sequence[str]) -> list[TopicState]:
    """The existing topics as they are on the broker.

    Raises:
        BrokerUnavailableError, BrokerRefusedError: as of `create_topics`.
    """
    wait_for_broker(connection, 30)
    with _admin(connection, 30) as admin:
        found = described(connection, admin, names)
        wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names if name in found]
        shown = admin.describe_configs(wanted, config_filter="all").get("topic", {}) if wanted else {}
    return [
        TopicState(
            resource.name,
            len(topic["partitions"]),
            min(len(partition["replica_nodes"]) for partition in topic["partitions"]),
            {name: config["value"] for name, config in shown.get(resource.name, {}).items() if config["value"] is not None},
        )
        for resource in wanted
        for topic in [found[resource.name]]
    ]


def alter_topic(connection: Connection, name: str, wanted: dict[str, str]) -> None:
    """Change these settings of a topic, and keep the others.

    Raises:
        NotAuthorizedError: we may not.
        ValueError: the broker refuses them.
    """
    with _admin(connection, 30) as admin, authorized(connection, f"alter topic {name}"):
        answer = admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, wanted)])["topic"][name]
    if answer != "OK":
        if "uthoriz" in answer:
            raise NotAuthorizedError(
                f"Kafka does not let us alter topic {name} ({answer})", "grant the ACL AlterConfigs, or use kafka-configs.sh"
            )
        raise ValueError(f"Kafka did not alter topic {name}: {answer}")


def count_partitions(connection: Connection, name: str) -> int:
    """The number of partitions of a topic; `name` is the broker's.

    Raises:
        KeyError: there is no such topic.
        NotAuthorizedError: we may not know.
        KafkaError: no broker answered.
    """
    with _admin(connection, 30) as admin:
        return _partitions(connection, admin, [name])[name]


def remove_members(connection: Connection, group: str, timeout_s: float = 10.0) -> int:
    """Remove all members of a consumer group, whose processes must have ended. Returns their number.

    For a broker that does not expire a member that went silent, as the embedded one: those who join later would wait for it for ever.

    Raises:
        KafkaError: the broker did not answer.
    """
    with _admin(connection, timeout_s) as admin:
        members = admin.describe_groups([group])[group]["members"]
        admin.remove_group_members(group, [MemberToRemove(member_id=member["member_id"]) for member in members])
        return len(members)


@contextmanager
def _admin(connection: Connection, timeout_s: float) -> Iterator[KafkaAdminClient]:
    timeout_ms = int(timeout_s * 1000)
    client = KafkaAdminClient(**connection.for_kafka_python(), request_timeout_ms=timeout_ms, bootstrap_timeout_ms=timeout_ms)
    try:
        yield client
    finally:
        client.close()


def _partitions(connection: Connection, admin: KafkaAdminClient, names: list[str]) -> dict[str, int]:
    return {name: len(topic["partitions"]) for name, topic in described(connection, admin, names).items()}


def _create(admin: KafkaAdminClient, topic: TopicSpec, name: str, partitions: int, replication: int) -> None:
    wanted = {"num_partitions": partitions, "replication_factor": replication}
    try:
        admin.create_topics({name: {**wanted, "configs": settings(topic, replication)}})
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

"""The settings that a topic needs for our guarantees, compared with those on the broker. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from stream.kafka.topics import TopicSpec

TOMBSTONES_MS = 100 * 365 * 86_400_000  # not the largest number: Kafka adds it to the clock
RECORD_BYTES = 1_048_588  # Kafka's own default: a record of 1 MiB and its frame
SHOWN = ("cleanup.policy", "retention.ms", "retention.bytes", "min.insync.replicas", "max.message.bytes", "compression.type")


class TopicState(NamedTuple):
    """A topic on the broker; `settings` by Kafka's names, empty if we may not read them."""

    name: str
    partitions: int
    replication: int
    settings: Mapping[str, str]


class Difference(NamedTuple):
    """A setting that breaks a guarantee; `alterable` by `everlong topics --repair`."""

    setting: str
    found: str
    needed: str
    alterable: bool


def settings(topic: TopicSpec, replication: int) -> dict[str, str]:
    """The settings that our topics are created with, by Kafka's names."""
    made = {"retention.bytes": "-1", "max.message.bytes": str(RECORD_BYTES)}
    if replication >= 3:  # with fewer replicas, one missing broker would stop writes
        made |= {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"}
    if topic.compacted:  # a worker that starts later, with a bundle that holds the item, must still read its deletion
        return made | {"cleanup.policy": "compact", "delete.retention.ms": str(TOMBSTONES_MS)}
    return made | {"cleanup.policy": "delete", "retention.ms": str(topic.retention_ms)}


def differences(
    topic: TopicSpec, found: TopicState, partitions: int, replication: int, bounded: Mapping[str, str] = MappingProxyType({})
) -> list[Difference]:
    """Where a topic falls short of `settings`. More than needed (longer retention, larger messages) is no difference.

    `bounded` are the settings with which the embedded broker keeps the topic small; they replace those of `settings`.
    """
    wrong = []
    if found.partitions != (wanted := topic.partitions or partitions):
        wrong.append(Difference("partitions", str(found.partitions), str(wanted), False))
    if found.replication < replication:
        wrong.append(Difference("replication factor", str(found.replication), str(replication), False))
    if not found.settings:
        return [*wrong, Difference("settings", "hidden", "visible: the ACL DescribeConfigs", False)]
    for name, made in settings(topic, replication).items():
        needed = bounded.get(name, made)
        if not _enough(name, found.settings.get(name), needed):
            wrong.append(Difference(name, found.settings.get(name, "unknown"), needed, True))
    return wrong


def _enough(name: str, found: str | None, needed: str) -> bool:
    if found == needed:
        return True
    if found is None or not needed.lstrip("-").isdigit() or not found.lstrip("-").isdigit():
        return False
    if name.startswith("retention.") and -1 in (int(found), int(needed)):
        return found == "-1"
    return int(found) >= int(needed)

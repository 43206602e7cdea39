"""Keeps the log small on a broker that holds all of it in memory: applied records are deleted, compaction and retention work early.

For the embedded broker only. A real Kafka keeps its log on disk and as long as its topics say.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, OffsetSpec

from stream.kafka.connection import Connection
from stream.kafka.topics import (
    CANDIDATES,
    CLICKS,
    CODEBOOKS,
    DEAD_LETTERS,
    ITEM_CODES,
    ITEMS,
    ORDERS,
    QUERIES,
    REFRESH,
    TopicSpec,
    prefixed,
)

MB = 1 << 20
DIRTY_SHARE = 0.2  # of a compacted topic that may be records with newer ones of their keys


class Bounds(NamedTuple):
    """Bytes of a topic, all its partitions together, and records as the producer sent them.

    `applied`: what stays although its reader applied it, by topic; the reader is a role, its group that of the role. `retained`: what
    stays of topics that nobody has to have read. The newest stay. `segment`: of a partition; the open segment is neither compacted
    nor deleted.
    """

    applied: Mapping[TopicSpec, tuple[str, int]]
    retained: Mapping[TopicSpec, int]
    segment: int = MB // 2


BOUNDS = Bounds(
    applied={CLICKS: ("ingest", 4 * MB), QUERIES: ("ingest", 2 * MB), ORDERS: ("ingest", 2 * MB), REFRESH: ("refresh", MB)},
    retained={CANDIDATES: 4 * MB, DEAD_LETTERS: 16 * MB},
)
COMPACTED = (ITEMS, ITEM_CODES, CODEBOOKS)


def bounded(bounds: Bounds, partitions: Mapping[TopicSpec, int]) -> dict[TopicSpec, dict[str, str]]:
    """The settings that keep each topic small, by Kafka's names. `partitions` counts those of the topics retained by size."""
    early = {"segment.bytes": str(bounds.segment), "min.cleanable.dirty.ratio": str(DIRTY_SHARE)}
    wanted = dict.fromkeys((*bounds.applied, *COMPACTED), early)
    for spec, kept in bounds.retained.items():
        share = max(1, kept // partitions[spec])
        policy = {"cleanup.policy": "compact,delete", "retention.ms": "-1"} if spec.compacted else {}
        wanted[spec] = {**early, **policy, "segment.bytes": str(min(bounds.segment, share)), "retention.bytes": str(share)}
    return wanted


class BoundedLog:
    """The log of an embedded broker with our topics. `group` is the start of the groups' names. Belongs to one thread; blocking.

    Any call may raise KafkaError: the broker does not answer.
    """

    def __init__(self, connection: Connection, prefix: str, group: str, bounds: Bounds = BOUNDS) -> None:
        self._prefix, self._group, self._bounds = prefix, group, bounds
        self._admin = KafkaAdminClient(**connection.for_kafka_python(), request_timeout_ms=10_000, bootstrap_timeout_ms=10_000)

    def close(self) -> None:
        """Close the connection."""
        self._admin.close()

    def configure(self) -> None:
        """Give the topics, which exist, short segments, early compaction and a retention by size where no worker reads them."""
        counts = self._partitions(self._bounds.retained)
        wanted = bounded(self._bounds, {spec: counts[prefixed(self._prefix, spec)] for spec in self._bounds.retained})
        self._admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, prefixed(self._prefix, spec), configs) for spec, configs in wanted.items()]
        )

    def trim(self) -> int:
        """Delete the oldest applied records of topics that are over their bound; gives the bytes that are not applied yet."""
        looked = self._look()
        upto = {
            place: min(part.applied, part.end - int((part.end - part.start) * kept / total))
            for spec, (_, kept) in self._bounds.applied.items()
            if (total := sum(part.size for place, part in looked.items() if place.topic == prefixed(self._prefix, spec))) > kept
            for place, part in looked.items()
            if place.topic == prefixed(self._prefix, spec)
        }
        if found := {place: offset for place, offset in upto.items() if offset > looked[place].start}:
            self._admin.delete_records(found)
        return sum(part.waiting for part in looked.values())

    def waiting(self) -> int:
        """Bytes of records that the workers have not applied yet, as far as they have committed."""
        return sum(part.waiting for part in self._look().values())

    def _look(self) -> dict[TopicPartition, "_Part"]:
        topics = {prefixed(self._prefix, spec): role for spec, (role, _) in self._bounds.applied.items()}
        places = [TopicPartition(name, number) for name, count in self._partitions(self._bounds.applied).items() for number in range(count)]
        groups = {role: f"{self._prefix}{self._group}-{role}" for role in {*topics.values()}}
        committed = self._admin.list_group_offsets([*groups.values()])
        starts = self._admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.EARLIEST))
        ends = self._admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST))
        sizes = self._sizes(topics)
        found = {}
        for place in places:
            start = starts[place].offset
            done = committed.get(groups[topics[place.topic]], {}).get(place)
            found[place] = _Part(start, ends[place].offset, max(start, done.offset if done is not None else 0), sizes[place])
        return found

    def _sizes(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        described = self._admin.describe_log_dirs([*topics])
        return {
            TopicPartition(topic["name"], partition["partition_index"]): partition["partition_size"]
            for broker in described
            for folder in broker["log_dirs"]
            for topic in folder["topics"]
            for partition in topic["partitions"]
        }

    def _partitions(self, specs: Iterable[TopicSpec]) -> dict[str, int]:
        return {
            topic["name"]: len(topic["partitions"])
            for topic in self._admin.describe_topics([prefixed(self._prefix, spec) for spec in specs])
        }


class _Part(NamedTuple):
    """A partition: offsets of its first record, after its last and after the last applied; bytes that the broker keeps of it."""

    start: int
    end: int
    applied: int
    size: int

    @property
    def waiting(self) -> int:
        """Bytes of what is not applied, as if records were all of one size."""
        return int(self.size * (self.end - self.applied) / max(1, self.end - self.start))

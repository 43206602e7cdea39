"""The topics: name, key, retention; and the partition that a key belongs to."""

from typing import NamedTuple

from aiokafka.partitioner import murmur2

from features.events import Topic


class TopicSpec(NamedTuple):
    """A topic of the broker. Retention of -1 ms keeps everything; a compacted topic keeps the newest record of a key.

    `partitions` is set only for a topic whose records need one total order.
    """

    name: str
    key: str
    compacted: bool = False
    retention_ms: int = -1
    partitions: int | None = None


CLICKS = TopicSpec(Topic.CLICKS, "user id")
QUERIES = TopicSpec(Topic.QUERIES, "user id")
ORDERS = TopicSpec(Topic.ORDERS, "user id")
ITEMS = TopicSpec(Topic.ITEMS, "item id", compacted=True)
ITEM_CODES = TopicSpec("item-codes", "item id", compacted=True)
CODEBOOKS = TopicSpec("codebooks", "kind and generation or bundle", compacted=True, partitions=1)
REFRESH = TopicSpec("refresh", "user id", retention_ms=86_400_000)
CANDIDATES = TopicSpec("candidates", "user id", compacted=True)
DEAD_LETTERS = TopicSpec("events.dlq", "source topic and partition", retention_ms=30 * 86_400_000)

BEHAVIOUR = (CLICKS, QUERIES, ORDERS)
ALL = (*BEHAVIOUR, ITEMS, ITEM_CODES, CODEBOOKS, REFRESH, CANDIDATES, DEAD_LETTERS)


def prefixed(prefix: str, topic: TopicSpec) -> str:
    """The broker's name of a topic; with a `prefix`, several shops (and tests) can share one broker."""
    return prefix + topic.name


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key among `partitions`, by murmur2: the default of Kafka's Java client and of ours.

    The log position of a row is offsets of one partition, so all records of a key must lie in that one.
    """
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def misplaced(key: bytes, partition: int, partitions: int) -> str | None:
    """Why a record of this key must not be in this partition, as a sentence with the remedy; None if it is where it belongs."""
    right = partition_of(key, partitions)
    if right == partition:
        return None
    return (
        f"the record's key belongs to partition {right} of {partitions}: let its producer partition by murmur2 (librdkafka: "
        "partitioner=murmur2_random), then `everlong dlq replay`"
    )

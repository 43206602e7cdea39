"""Which partition a key belongs to. A row's version is offsets of one partition, so all records of a key must lie in that one."""

from aiokafka.partitioner import murmur2


def partition_of(key: bytes, partitions: int) -> int:
    """The partition, of so many, that Kafka's Java client and ours send this key to: murmur2, their default."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def misplaced(key: bytes, partition: int, partitions: int) -> str | None:
    """What is wrong with a record of this key in this partition, in a sentence with the remedy; None where it belongs there."""
    right = partition_of(key, partitions)
    if right == partition:
        return None
    return (
        f"the record's key belongs to partition {right} of {partitions}: let its producer partition by murmur2 (librdkafka: "
        "partitioner=murmur2_random), then `everlong dlq replay`"
    )

"""What each role asks of the broker: the topics that it reads and writes. docs/access.md, its table of rights, is made from this."""

from collections.abc import Iterator
from typing import NamedTuple

from stream.kafka.topics import ALL, BEHAVIOUR, CANDIDATES, CODEBOOKS, DEAD_LETTERS, ITEM_CODES, ITEMS, REFRESH, TopicSpec


class Grant(NamedTuple):
    """The topics of a role. `grouped`: it reads as a consumer group, which is named as the role."""

    reads: tuple[TopicSpec, ...]
    writes: tuple[TopicSpec, ...]
    grouped: bool = False

    @property
    def topics(self) -> tuple[TopicSpec, ...]:
        """Those that the role reads or writes."""
        return tuple(dict.fromkeys((*self.reads, *self.writes)))


class Right(NamedTuple):
    """An ACL to allow, as kafka-acls.sh names it: resource type (`topic`, `group`), resource, operation."""

    resource: str
    name: str
    operation: str


GRANTS = {
    "ingest": Grant(BEHAVIOUR, (REFRESH, DEAD_LETTERS), grouped=True),
    "catalogue": Grant((ITEMS, ITEM_CODES, CODEBOOKS), (ITEM_CODES, CODEBOOKS, DEAD_LETTERS), grouped=True),
    "refresh": Grant((REFRESH, ITEM_CODES, CODEBOOKS), (CANDIDATES, REFRESH), grouped=True),
    "api": Grant((CANDIDATES,), (*BEHAVIOUR, ITEMS)),
    "operator": Grant(ALL, (*BEHAVIOUR, ITEMS, CODEBOOKS)),
}
ADMINISTERS = ("Create", "DescribeConfigs", "AlterConfigs")  # operations of `operator` on every topic: `everlong topics`, with --repair


def rights(role: str, prefix: str = "", group: str = "everlong") -> Iterator[Right]:
    """The ACLs that a role needs, with EVERLONG_TOPIC_PREFIX and EVERLONG_GROUP. Read and Write imply Describe."""
    grant = GRANTS[role]
    for topic in grant.topics:
        operations = [name for name, topics in (("Read", grant.reads), ("Write", grant.writes)) if topic in topics]
        operations += ADMINISTERS if role == "operator" else ()
        yield from (Right("topic", f"{prefix}{topic.name}", operation) for operation in operations)
    if grant.grouped:
        yield Right("group", f"{prefix}{group}-{role}", "Read")

"""Compares the settings of Everlong's topics at the broker with the required ones."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from infra.local.running import on_embedded_broker
from infra.settings import Settings
from stream.kafka.admin import alter_topic, standings
from stream.kafka.bounded_log import BOUNDS, bounded
from stream.kafka.connection import Connection
from stream.kafka.promised import SHOWN, Difference, TopicState, differences
from stream.kafka.topics import ALL, TopicSpec, prefixed

COLUMNS = ("name", "key", "partitions", "copies", *SHOWN)
REMEDIES = {
    "partitions": "choose another EVERLONG_TOPIC_PREFIX, create the topics there and send the events again; adding partitions moves keys",
    "replication factor": "raise it with kafka-reassign-partitions.sh",
    "settings": "grant the right, or use an account that has it",
}


class Kept(NamedTuple):
    """One of Everlong's topics, its state at the broker (None: missing), and its differences from the requirements."""

    topic: TopicSpec
    name: str
    standing: TopicState | None
    differences: list[Difference]

    @property
    def described(self) -> dict[str, Any]:
        """A dictionary for programs."""
        found = self.standing
        return {
            "name": self.name,
            "key": self.topic.key,
            "exists": found is not None,
            "partitions": found and found.partitions,
            "replication": found and found.replication,
            "settings": {name: found.settings.get(name) for name in SHOWN} if found else {},
            "differences": [{"setting": d.setting, "found": d.found, "needed": d.needed} for d in self.differences],
        }

    @property
    def cells(self) -> list[object]:
        """The cells of COLUMNS, for people."""
        if (found := self.standing) is None:
            return [self.name, self.topic.key, *["missing"] * (len(COLUMNS) - 2)]
        return [self.name, self.topic.key, found.partitions, found.replication, *(found.settings.get(name, "?") for name in SHOWN)]

    @property
    def complaints(self) -> list[str]:
        """A sentence for each difference, with its remedy."""
        if self.standing is None:
            return [f"{self.name} is missing: `everlong topics` creates it"]
        said = "{}: {} is {}, and must be {}: {}"
        return [
            said.format(
                self.name, d.setting, d.found, d.needed, "`everlong topics --repair` sets it" if d.alterable else REMEDIES[d.setting]
            )
            for d in self.differences
        ]


def kept(connection: Connection, settings: Settings) -> list[Kept]:
    """All of Everlong's topics. On the embedded broker of `everlong up`, logs must have limited size.

    Raises:
        BrokerUnavailableError, BrokerRefusedError: the broker does not answer or refuses the request.
    """
    names = {prefixed(settings.topic_prefix, topic): topic for topic in ALL}
    found = {standing.name: standing for standing in standings(connection, list(names))}
    small: Mapping[TopicSpec, Mapping[str, str]] = {}
    if on_embedded_broker(settings):
        small = bounded(BOUNDS, {topic: found[name].partitions if name in found else 1 for name, topic in names.items()})

    def differing(topic: TopicSpec, standing: TopicState) -> list[Difference]:
        return differences(topic, standing, settings.partitions, settings.replication, small.get(topic, {}))

    return [
        Kept(topic, name, standing, differing(topic, standing) if standing else [])
        for name, topic in names.items()
        for standing in [found.get(name)]
    ]


def repaired(connection: Connection, found: list[Kept]) -> bool:
    """Correct the settings that can be changed; whether any was.

    Raises:
        NotAuthorizedError, ValueError: the broker does not allow it.
    """
    wanted = {topic.name: {d.setting: d.needed for d in topic.differences if d.alterable} for topic in found}
    for name, settings in wanted.items():
        if settings:
            alter_topic(connection, name, settings)
    return any(wanted.values())

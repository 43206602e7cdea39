"""Records of internal topics that cannot be used: each is counted, the first of a kind is logged, and the reader goes on."""

import logging
from collections.abc import Callable
from typing import Any

from stream.kafka.messages import Skipped
from stream.kafka.topics import TopicSpec

log = logging.getLogger(__name__)


class Skips:
    """Counts what a reader skips, by topic and reason. Thread-safe.

    Args:
        count: called with the topic's name (without the prefix) and the reason of each record.
    """

    def __init__(self, count: Callable[[str, str], object] = lambda topic, reason: None) -> None:
        self._count = count
        self._logged: set[tuple[str, str]] = set()

    def add(self, record: Any, topic: TopicSpec, skipped: Skipped) -> None:
        """A record of this topic is skipped."""
        kind = topic.name, skipped.reason
        self._count(*kind)
        if kind not in self._logged:
            self._logged.add(kind)
            log.error(
                "%s/%d offset %d is not a valid Everlong message (%s: %s) and is skipped; further ones of this kind are only counted",
                record.topic,
                record.partition,
                record.offset,
                skipped.reason,
                skipped.detail,
            )

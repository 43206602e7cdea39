"""The ingest worker: clicks, queries and orders into rows of the store, then refresh requests and dead letters."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple

import msgspec

from features.events import Topic
from infra.clock import wall_ms
from infra.metrics import IngestMetrics
from infra.settings import Settings
from stream.kafka.headers import sent_header
from stream.kafka.messages import split
from stream.kafka.producer import Outgoing
from stream.kafka.topics import BEHAVIOUR, CLICKS, REFRESH, prefixed
from stream.pipelines.dead_letters import outgoing
from stream.pipelines.ingest import Ingest, Outcome
from stream.pipelines.steps import Steps, untimed
from stream.workers.context import Frame, count
from stream.workers.past import KafkaPast

log = logging.getLogger(__name__)

MOST_LOGGED = 5  # unreadable rows of a batch


def run(settings: Settings) -> int:
    """Run it until a signal; the exit code."""
    frame = Frame(IngestMetrics(), settings)
    partitions = frame.partitions(CLICKS)  # as many as the others have: create_topics refuses what differs
    past = KafkaPast(frame.connection, settings.topic_prefix, lambda: frame.app.progress.alive(monotonic()))
    ingest = Ingest(
        frame.store,
        wall_ms,
        settings.time_rules,
        settings.epoch,
        settings.cached_events,
        partitions,
        frame.era,
        past,
        settings.rows_from_epoch,
    )
    frame.read(BEHAVIOUR, IngestWorker(ingest, frame.publish, frame.metrics, settings.topic_prefix).handle, in_step=True)
    return frame.run()


class Written(NamedTuple):
    """What was applied but not published yet: which records (topic, partition, first and last offset), their outcome, when."""

    place: tuple[str, int, int, int]
    outcome: Outcome
    at_ms: int


class IngestWorker:
    """Applies a list, publishes what follows from it, then counts it. A list is counted once, when both are done.

    A list whose publication failed comes again; then it is published again, not applied again, as it would count as redelivered.
    """

    def __init__(
        self, ingest: Ingest, publish: Callable[[Sequence[Outgoing]], Awaitable[None]], metrics: IngestMetrics, prefix: str
    ) -> None:
        self._ingest, self._publish, self._metrics, self._prefix = ingest, publish, metrics, prefix
        self._topics: Mapping[str, Topic] = {prefixed(prefix, spec): Topic(spec.name) for spec in BEHAVIOUR}
        self._written: Written | None = None

    async def handle(self, records: Sequence[Any], steps: Steps = untimed) -> None:
        """Take a list of records of one partition.

        Raises:
            StoreUnavailableError, LogUnavailableError, PublishError: hand it in again.
        """
        first, topic = records[0], self._topics[records[0].topic]
        place = first.topic, first.partition, first.offset, records[-1].offset
        written, self._written = self._written, None
        if written is None or written.place != place:
            outcome = await asyncio.to_thread(self._ingest.process, topic, records, steps)
            written = Written(place, outcome, wall_ms())
        self._written = written
        with steps("publish"):
            await self._publish(self._messages(written.outcome))
        self._written = None
        self._count(topic, written)

    def _messages(self, outcome: Outcome) -> list[Outgoing]:
        topic = prefixed(self._prefix, REFRESH)
        return [
            Outgoing(topic, part.user_id.encode(), msgspec.json.encode(part), None, [sent_header(part.sent_ms)])
            for request in outcome.refreshes
            for part in split(request)
        ] + [outgoing(letter, self._prefix) for letter in outcome.dead]

    def _count(self, topic: Topic, written: Written) -> None:
        metrics, outcome = self._metrics, written.outcome
        taken = {name: number for name, number in outcome.counts.items() if name != "dead"}
        count(metrics.events, lambda name: {"topic": topic.value, "outcome": name}, taken)
        count(metrics.dead_letters, lambda name: {"reason": name}, Counter(letter.reason for letter in outcome.dead))
        count(metrics.rows_written, lambda name: {"view": name}, outcome.rows_written)
        count(metrics.rows_refused, lambda name: {"view": name}, outcome.rows_refused)
        count(metrics.rows_quarantined, lambda name: {"view": name}, Counter(row.view for row in outcome.apart))
        for row in outcome.apart[:MOST_LOGGED]:
            log.error(
                "the row %s of %r cannot be read (%s): kept apart, rebuilt from the log: %s",
                row.view,
                row.entities,
                row.reason,
                row.rebuilt,
            )
        for request in outcome.refreshes:
            metrics.event_to_feature.observe(max(0, written.at_ms - request.sent_ms) / 1000)

"""The ingest worker: clicks, queries and orders become rows of the store, refresh requests and dead letters."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from features.events import Topic
from stream.kafka.messages import sent_header, split
from stream.kafka.producer import Outgoing
from stream.kafka.topics import BEHAVIOUR, REFRESH, prefixed
from stream.pipelines.batch import Steps, untimed
from stream.pipelines.dead_letters import outgoing
from stream.pipelines.ingest import Ingest, Outcome
from stream.workers.agents import Batch
from stream.workers.context import WorkerContext
from stream.workers.observer import WorkerObserver

log = logging.getLogger(__name__)

MOST_LOGGED = 5  # unreadable rows of a batch


class IngestObserver(WorkerObserver, Protocol):
    """The events of an ingest worker."""

    def ingested(self, topic: Topic, outcome: Outcome, written_ms: int) -> None:
        """A batch of this topic was written at `written_ms` (wall clock, ms), and what follows from it is published."""


class Written(NamedTuple):
    """A batch that was written and is not published yet: topic, partition, first and last offset; its outcome; when (wall clock, ms)."""

    place: tuple[str, int, int, int]
    outcome: Outcome
    at_ms: int


class IngestWorker:
    """Processes batches of one partition of clicks, queries or orders.

    A batch whose publication failed comes again. Then only its publication is repeated: if applied again, its events would count as
    redelivered.
    """

    def __init__(
        self,
        pipeline: Ingest,
        publish: Callable[[Sequence[Outgoing]], Awaitable[None]],
        observer: IngestObserver,
        prefix: str,
        clock_ms: Callable[[], int],
    ) -> None:
        self._pipeline, self._publish, self._observer = pipeline, publish, observer
        self._prefix, self._clock_ms = prefix, clock_ms
        self._topics: Mapping[str, Topic] = {prefixed(prefix, spec): Topic(spec.name) for spec in BEHAVIOUR}
        self._written: Written | None = None

    def run(self, context: WorkerContext) -> int:
        """Process clicks, queries and orders until a signal; the exit code."""
        context.consume(BEHAVIOUR, self.process, in_step=True)
        return context.run()

    async def process(self, batch: Batch, steps: Steps = untimed) -> None:
        """Process one batch: 1 decode, 2 read the rows, 3 merge, 4 write the rows, 5 publish requests and dead letters, 6 acknowledge.

        Raises:
            StoreUnavailableError, LogUnavailableError, PublishError: process the same batch again.
        """
        first, last = batch.records[0], batch.records[-1]
        topic, place = self._topics[first.topic], (first.topic, first.partition, first.offset, last.offset)
        written, self._written = self._written, None
        if written is None or written.place != place:
            # Steps 1 to 4
            outcome = await asyncio.to_thread(self._pipeline.process, topic, batch.records, steps)
            written = Written(place, outcome, self._clock_ms())
        self._written = written
        # Step 5
        with steps("publish"):
            await self._publish(self._messages(written.outcome))
        self._written = None
        self._report(topic, written)
        # Step 6
        await batch.acknowledge()

    def _messages(self, outcome: Outcome) -> list[Outgoing]:
        topic = prefixed(self._prefix, REFRESH)
        return [
            Outgoing(topic, part.user_id.encode(), msgspec.json.encode(part), None, [sent_header(part.sent_ms)])
            for request in outcome.refreshes
            for part in split(request)
        ] + [outgoing(letter, self._prefix) for letter in outcome.dead]

    def _report(self, topic: Topic, written: Written) -> None:
        self._observer.ingested(topic, written.outcome, written.at_ms)
        for row in written.outcome.apart[:MOST_LOGGED]:
            log.error(
                "the row %s of %r cannot be read (%s): quarantined, rebuilt from the log: %s",
                row.view,
                row.entities,
                row.reason,
                row.rebuilt,
            )

"""Publishes events to their topics: all at once, or at the pace of their time stamps."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from features.events import Event, Item
from features.retries import RetryPolicy
from infra.clock import wall_ms
from infra.local.trimming import Room
from stream.errors import PublishError
from stream.kafka.connection import Connection
from stream.kafka.producer import Outbound
from stream.pipelines.replay import Record, record

BATCH_EVENTS = 1_000
STEP_S = 0.05
_POLICY = RetryPolicy(first_s=0.5)

OnSent = Callable[[Sequence[Event], int], None]  # the events, and the wall clock (ms) at which they were sent


class Feed:
    """Publishes events and counts those acknowledged by the broker, by topic without prefix.

    Used as `async with`. It waits through an outage of the broker and publishes again, so a record may be there twice. With a
    `room`, it waits for workers that are too far behind.
    """

    def __init__(self, connection: Connection, prefix: str = "", sent: Counter[str] | None = None, room: Room | None = None) -> None:
        self._outbound = Outbound(connection)
        self._prefix = prefix
        self._room = room
        self.sent: Counter[str] = Counter() if sent is None else sent

    async def __aenter__(self) -> "Feed":
        await self._outbound.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._outbound.stop()
        if self._room is not None:
            self._room.close()

    async def send(self, events: Sequence[Event]) -> int:
        """Publish events; returns their time of sending (wall clock, ms)."""
        now_ms = wall_ms()
        await self.publish([record(event, now_ms, self._prefix) for event in events])
        return now_ms

    async def publish(self, records: Sequence[Record]) -> None:
        """Publish records unchanged.

        Raises:
            PublishError: the broker was unavailable for too long.
            LogFullError: the workers applied nothing for too long.
        """
        if self._room is not None and self._room.sending(sum(len(value or b"") for _, _, value, *_ in records)):
            await asyncio.to_thread(self._room.wait)
        await _POLICY.retrying_async(lambda error: isinstance(error, PublishError), None, asyncio.sleep)(self._outbound.publish, records)
        self.sent.update(topic.removeprefix(self._prefix) for topic, *_ in records)

    async def send_all(self, events: Sequence[Event], tell: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Publish events in order, as fast as the broker accepts them; `tell` is called with (sent, total)."""
        for start in range(0, len(events), BATCH_EVENTS):
            await self.send(events[start : start + BATCH_EVENTS])
            tell(min(start + BATCH_EVENTS, len(events)), len(events))

    async def send_live(self, events: Iterator[Event], until_ms: int | None, on_sent: OnSent = lambda events, ms: None) -> None:
        """Publish events when the wall clock reaches their time, in batches of those due; stops at the first after `until_ms`."""
        event = next(events, None)
        while event is not None and (until_ms is None or event.ts < until_ms):
            due: list[Event] = []
            now_ms = wall_ms()
            while event is not None and event.ts <= now_ms and len(due) < BATCH_EVENTS and (until_ms is None or event.ts < until_ms):
                due.append(event)
                event = next(events, None)
            if due:
                on_sent(due, await self.send(due))
            else:
                await asyncio.sleep(STEP_S)


def users_of(events: Iterable[Event]) -> list[str]:
    """The distinct users of events, ascending."""
    return sorted({event.user_id for event in events if not isinstance(event, Item)})

"""Event-to-candidate latency as seen by a client: from sending an event to receiving the candidate set that includes it."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

import msgspec

from features.events import Event, Item
from infra.clock import wall_ms
from stream.kafka.connection import Connection, pace
from stream.kafka.topics import CANDIDATES, prefixed

NEWEST = 20_000


class _Answered(msgspec.Struct):
    """The fields of a candidate set that identify the events it includes."""

    user_id: str
    event_ts: int


class Latency:
    """Reads the topic `candidates` and matches each set with the events that it includes. Used as `async with`."""

    def __init__(self, connection: Connection, prefix: str = "") -> None:
        self._consumer = pace(connection.async_consumer(prefixed(prefix, CANDIDATES), auto_offset_reset="latest"))
        self._waiting: dict[str, deque[tuple[int, int]]] = defaultdict(deque)  # user -> (event time, sent), ms
        self._measured: deque[float] = deque(maxlen=NEWEST)
        self._decoder = msgspec.json.Decoder(_Answered)
        self._task: asyncio.Task[None] | None = None
        self.sets = 0

    async def __aenter__(self) -> "Latency":
        await self._consumer.start()
        await self._consumer.seek_to_end()
        self._task = asyncio.create_task(self._tail())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._consumer.stop()

    def sent(self, events: Sequence[Event], sent_ms: int) -> None:
        """Record that these events were sent at `sent_ms` (wall clock); each waits for its user's next candidate set."""
        for event in events:
            if not isinstance(event, Item):
                self._waiting[event.user_id].append((event.ts, sent_ms))

    @property
    def unanswered(self) -> int:
        """The number of events still waiting for a candidate set."""
        return sum(map(len, self._waiting.values()))

    def quantile_ms(self, q: float) -> float | None:
        """Quantile `q` of the latency (ms), None without measurements."""
        ordered = sorted(self._measured)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None

    async def _tail(self) -> None:
        async for record in self._consumer:
            now_ms = wall_ms()
            if record.value is None:
                continue
            self.sets += 1
            answered = self._decoder.decode(record.value)
            waiting = self._waiting[answered.user_id]
            late = [pair for pair in waiting if pair[0] > answered.event_ts]
            self._measured.extend(float(now_ms - sent_ms) for ts, sent_ms in waiting if ts <= answered.event_ts)
            self._waiting[answered.user_id] = deque(late)

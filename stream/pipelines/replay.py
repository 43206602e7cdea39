"""Replay: publish the events of a file in the order of time, as fast as possible or at N times their original speed."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from itertools import chain
from typing import Literal

from features.events import Event, Topic, encode, key_of
from features.sources import Reading, topic_of
from stream.kafka.messages import sent_header
from stream.kafka.producer import Outgoing

BATCH_EVENTS = 1_000

Record = Outgoing
Publish = Callable[[list[Record]], Awaitable[object]]
Progress = Callable[[int, int], None]  # events published, events in total


async def replay(
    reading: Reading,
    publish: Publish,
    *,
    speed: Literal["max"] | float = "max",
    prefix: str = "",
    progress: Progress | None = None,
) -> Counter[Topic]:
    """Publish a file's items, then its events ascending by time, each once. Returns the number published to each topic.

    `publish` is as stream.kafka.producer's. `speed` 2.0 is twice the original speed; items do not wait. A record's timestamp is that of its
    event, its header `sent_ms` the wall clock. Raises what `publish` raises.
    """
    if speed != "max" and not speed > 0:
        raise ValueError(f"speed must be 'max' or above 0, not {speed}")
    items = await asyncio.to_thread(lambda: sorted(reading.described() + reading.undescribed(), key=lambda item: item.item_id))
    total = len(items) + reading.count
    sent: Counter[Topic] = Counter()

    async def send(batch: list[Event]) -> None:
        await publish([record(event, _wall_ms(), prefix) for event in batch])
        sent.update(topic_of(event) for event in batch)
        if progress is not None:
            progress(sent.total(), total)

    events = reading.events()
    if speed == "max":
        await _send_all(chain(items, events), send)
    else:
        await _send_all(items, send)
        await _send_timed(events, send, speed)
    return sent


def record(event: Event, sent_ms: int, prefix: str = "") -> Record:
    """The record of an event."""
    return Outgoing(prefix + topic_of(event), key_of(event), encode(event), event.ts, [sent_header(sent_ms)])


async def _send_all(events: Iterable[Event], send: Callable[[list[Event]], Awaitable[None]]) -> None:
    batch: list[Event] = []
    for event in events:
        batch.append(event)
        if len(batch) == BATCH_EVENTS:
            await send(batch)
            batch = []
    if batch:
        await send(batch)


async def _send_timed(events: Iterable[Event], send: Callable[[list[Event]], Awaitable[None]], speed: float) -> None:
    """Send each event when its time since the first one, divided by `speed`, has passed; due events are sent together."""
    batch: list[Event] = []
    first_ms: int | None = None
    started_s = time.monotonic()
    for event in events:
        first_ms = event.ts if first_ms is None else first_ms
        wait_s = (event.ts - first_ms) / 1000 / speed - (time.monotonic() - started_s)
        if batch and (wait_s > 0 or len(batch) == BATCH_EVENTS):
            await send(batch)
            batch = []
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        batch.append(event)
    if batch:
        await send(batch)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000

"""The one kind of agent that we have: give a list of records to a handle, ack it when the handle returned.

What a handle raises, and what becomes of it:

    RetryableError        the list is tried again in place, not acked, with backoff; after `Backoff.give_up_after_s` a crash
    an outage (KafkaError)   the same
    anything else         a bug: crash; the worker commits what is done and exits 1, the list is delivered again

A record that cannot be used (a poison record) is the handle's to put aside as a dead letter; an exception stops the partition.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, NamedTuple

from aiokafka import ConsumerRecord

from features.errors import RetryableError
from stream.kafka.app import App
from stream.kafka.producer import outage
from stream.kafka.transport import Consumer, PassThrough, Transport

log = logging.getLogger(__name__)

Handle = Callable[[list[ConsumerRecord]], Awaitable[None]]
OnRetry = Callable[[Exception, int], None]


class Backoff(NamedTuple):
    """Waits between tries, in seconds: the first, the longest, and after how long in all to give up."""

    first_s: float = 0.1
    longest_s: float = 5.0
    give_up_after_s: float = 300.0

    def wait_s(self, tries: int, at_least_s: float, random_share: float) -> float:
        """How long to wait after so many failed tries; a random half of it (share in 0..1) keeps workers from knocking all at once."""
        ceiling = min(self.longest_s, max(self.first_s * 2 ** min(tries - 1, 30), at_least_s))
        return ceiling * (0.5 + 0.5 * random_share)


BACKOFF = Backoff()


def batch_agent(
    app: App,
    topic_names: Sequence[str],
    handle: Handle,
    *,
    in_step: bool,
    on_retry: OnRetry | None = None,
    backoff: Backoff = BACKOFF,
    together: int = 1,
) -> None:
    """Register an agent that awaits `handle(records)` for each list: records of one partition, ascending offsets, one list at a time.

    With `together`, up to so many lists that wait already, of whatever partitions, are handed on as one: the more there is to do, the
    larger the batches, and nobody waits for a batch to fill. `in_step` merges the topics of a partition by time
    (stream.kafka.timestamp_merge); they must have equally many partitions. `on_retry(error, tries)` is called after each failed
    try. Call it once per set of topics, before the app starts.
    """
    transport: Transport = app.transport  # type: ignore[assignment]
    if in_step:
        transport.step_topics.update(topic_names)

    async def agent(stream: Any) -> None:
        async for events in _waiting(stream, together):
            if await _work(app, handle, events, backoff, on_retry):
                for event in events:
                    await stream.ack(event)

    agent.__name__ = "-".join(("agent", *topic_names))
    app.agent(app.topic(*topic_names, schema=PassThrough()), name=agent.__name__)(agent)


def _retriable(error: Exception) -> bool:
    return isinstance(error, RetryableError) or outage(error)


async def _waiting(stream: Any, most: int) -> AsyncIterator[list[Any]]:
    """All events of the stream, those that wait together in one list of at most `most`."""
    if most == 1:
        async for event in stream.noack().events():
            yield [event]
        return
    queue: asyncio.Queue[Any] = asyncio.Queue(most)

    async def fill() -> None:
        async for event in stream.noack().events():
            await queue.put(event)

    filling = asyncio.create_task(fill())
    try:
        while True:
            first = asyncio.create_task(queue.get())
            await asyncio.wait({first, filling}, return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                first.cancel()
                filling.result()
                return
            yield [first.result(), *(queue.get_nowait() for _ in range(min(queue.qsize(), most - 1)))]
    finally:
        filling.cancel()


async def _work(app: App, handle: Handle, events: list[Any], backoff: Backoff, on_retry: OnRetry | None) -> bool:
    """True when the handle returned, False when the lists were abandoned because the worker stops or their partitions go."""
    began, tries = monotonic(), 0
    records = [record for event in events for record in event.value] if len(events) > 1 else events[0].value
    message = events[0].message
    while True:
        try:
            await handle(records)
            return True
        except Exception as error:
            tries += 1
            if not _retriable(error) or monotonic() - began >= backoff.give_up_after_s:
                raise
            log.warning("try %d of %s/%d failed, will try again: %s", tries, message.topic, message.partition, error)
            if on_retry is not None:
                on_retry(error, tries)
            wait_s = backoff.wait_s(tries, getattr(error, "retry_after_s", 0.0), random.random())
        if not await _pause(app, [event.message for event in events], wait_s):
            return False


async def _pause(app: App, messages: list[Any], wait_s: float) -> bool:
    """Wait, but not on when a stop or rebalance begins: False then, and the lists are abandoned."""
    consumer: Consumer = app.consumer  # type: ignore[assignment]
    end = monotonic() + wait_s
    while True:
        gone = any(message.generation_id != app.consumer_generation_id for message in messages)
        if app.should_stop or not consumer.flow_active or gone:
            for message in messages:
                consumer.abandon(message)
            return False
        app.progress.alive(monotonic())
        if (left := end - monotonic()) <= 0:
            return True
        await asyncio.sleep(min(left, 0.05))

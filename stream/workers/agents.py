"""The one kind of Faust agent that we have: it gives batches to a handler, which acknowledges each as its last step.

What a handler raises, and what follows:

    features.errors.RetryableError    retried in place, unacknowledged (features.retries); after `give_up_after_s` a crash
    an outage as KafkaError           the same
    anything else                     a bug: crash; the worker commits what is done and exits 1, the batch is delivered again

A record that cannot be used (a poison record) is the handler's to publish as a dead letter; an exception stops the partition.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Any

from features.errors import RetryableError
from features.retries import RetryPolicy
from stream.kafka.app import App
from stream.kafka.producer import outage
from stream.kafka.transport import Consumer, PassThrough, Transport

log = logging.getLogger(__name__)


async def _acknowledge_nothing() -> None:
    """For batches that no broker delivered."""


class Batch:
    """Consumer records to process as one: those of one partition, ascending by offset; with `together`, those of several partitions."""

    def __init__(self, records: Sequence[Any], acknowledge: Callable[[], Awaitable[None]] = _acknowledge_nothing) -> None:
        self.records = records
        self.acknowledged = False
        self._acknowledge = acknowledge

    async def acknowledge(self) -> None:
        """The records are done: their offsets may be committed, and they are not delivered again."""
        await self._acknowledge()
        self.acknowledged = True


Handler = Callable[[Batch], Awaitable[None]]
OnRetry = Callable[[Exception, int], None]


POLICY = RetryPolicy()


def batch_agent(
    app: App,
    topic_names: Sequence[str],
    handle: Handler,
    *,
    in_step: bool,
    on_retry: OnRetry | None = None,
    policy: RetryPolicy = POLICY,
    together: int = 1,
) -> None:
    """Register an agent that awaits `handle(batch)` for one batch at a time. The handler must acknowledge the batch before it returns.

    With `together`, up to that many lists of records that wait already, of any partitions, become one batch: a backlog makes batches
    larger, and none waits to fill. `in_step` merges the topics of a partition by time (stream.kafka.timestamp_merge); they must have the
    same number of partitions. `on_retry(error, tries)` is called after each failed try. Call it once per set of topics, before the app
    starts.
    """
    transport: Transport = app.transport  # type: ignore[assignment]
    if in_step:
        transport.step_topics.update(topic_names)

    async def agent(stream: Any) -> None:
        async with aclosing(_grouped(stream, together)) as groups:
            async for events in groups:
                await _process(app, handle, stream, events, policy, on_retry)

    agent.__name__ = "-".join(("agent", *topic_names))
    app.agent(app.topic(*topic_names, schema=PassThrough()), name=agent.__name__)(agent)


async def _grouped(stream: Any, most: int) -> AsyncGenerator[list[Any], None]:
    """All events of the stream, in lists of at most `most` that wait at the same time. Close it: it reads ahead in a task."""
    if most == 1:
        async for event in stream.noack().events():
            yield [event]
        return
    queue: asyncio.Queue[Any] = asyncio.Queue(most)

    async def fill() -> None:
        async for event in stream.noack().events():
            await queue.put(event)

    filling = first = asyncio.create_task(fill())
    try:
        while True:
            first = asyncio.create_task(queue.get())
            await asyncio.wait({first, filling}, return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                filling.result()
                return
            yield [first.result(), *(queue.get_nowait() for _ in range(min(queue.qsize(), most - 1)))]
    finally:
        filling.cancel()
        first.cancel()
        await asyncio.gather(filling, first, return_exceptions=True)


async def _process(app: App, handle: Handler, stream: Any, events: list[Any], policy: RetryPolicy, on_retry: OnRetry | None) -> None:
    """Process one batch, with retries, until the handler returns, or the worker stops, or its partitions are revoked."""

    async def acknowledge() -> None:
        for event in events:
            await stream.ack(event)

    batch = Batch([record for event in events for record in event.value] if len(events) > 1 else events[0].value, acknowledge)
    message = events[0].message

    def tell(error: Exception, tries: int) -> None:
        log.warning("try %d of %s/%d failed, will try again: %s", tries, message.topic, message.partition, error)
        if on_retry is not None:
            on_retry(error, tries)

    async def pause(wait_s: float) -> None:
        if not await _pause(app, [event.message for event in events], wait_s):
            raise _AbandonedError

    try:
        await policy.retrying_async(_retryable, tell, pause)(handle, batch)
    except _AbandonedError:
        return
    if not batch.acknowledged:
        raise RuntimeError(f"the handler of {message.topic} returned without acknowledging its batch")


class _AbandonedError(Exception):
    """The worker stops or its partitions are revoked: the batch is delivered again."""


def _retryable(error: BaseException) -> bool:
    return isinstance(error, RetryableError) or outage(error)


async def _pause(app: App, messages: list[Any], wait_s: float) -> bool:
    """Wait before the next try. False when a stop or rebalance begins meanwhile: then the batch is abandoned."""
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

"""The one kind of agent that we have: give a list of records to a handle, ack it when the handle returned.

What a handle raises, and what becomes of it:

    features.store.StoreUnavailable   the list is tried again in place, not acked, with backoff; after `Backoff.give_up_after_s` a crash
    stream.outbound.PublishFailed     the same
    an outage as KafkaError           the same
    anything else                     a bug: crash; the worker commits what is done and exits 1, the list is delivered again

A record that cannot be used (a poison record) is the handle's to put aside as a dead letter; an exception stops the partition.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, NamedTuple

from aiokafka import ConsumerRecord

from features.store import StoreUnavailable
from stream.app import App
from stream.outbound import PublishFailed, outage
from stream.transport import Consumer, PassThrough, Transport

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
) -> None:
    """Register an agent that awaits `handle(records)` for each list: records of one partition, ascending offsets, one list at a time.

    `in_step` reads the topics of a partition in step (stream.in_step); then they must have equally many partitions. `on_retry(error,
    tries)` is told of each failed try. Once a set of topics, before the app starts.
    """
    transport: Transport = app.transport  # type: ignore[assignment]
    if in_step:
        transport.step_topics.update(topic_names)

    async def agent(stream: Any) -> None:
        async for event in stream.noack().events():
            if await _work(app, handle, event, backoff, on_retry):
                await stream.ack(event)

    agent.__name__ = "-".join(("agent", *topic_names))
    app.agent(app.topic(*topic_names, schema=PassThrough()), name=agent.__name__)(agent)


def _retriable(error: Exception) -> bool:
    return isinstance(error, StoreUnavailable | PublishFailed) or outage(error)


async def _work(app: App, handle: Handle, event: Any, backoff: Backoff, on_retry: OnRetry | None) -> bool:
    """True when the handle returned, False when the list was abandoned because the worker stops or its partition goes."""
    began, tries = monotonic(), 0
    while True:
        try:
            await handle(event.value)
            return True
        except Exception as error:
            tries += 1
            if not _retriable(error) or monotonic() - began >= backoff.give_up_after_s:
                raise
            log.warning("try %d of %s/%d failed, will try again: %s", tries, event.message.topic, event.message.partition, error)
            if on_retry is not None:
                on_retry(error, tries)
            wait_s = backoff.wait_s(tries, getattr(error, "retry_after_s", 0.0), random.random())
        if not await _pause(app, event.message, wait_s):
            return False


async def _pause(app: App, message: Any, wait_s: float) -> bool:
    """Wait, but not on when a stop or rebalance begins: False then, and the list is abandoned."""
    consumer: Consumer = app.consumer  # type: ignore[assignment]
    end = monotonic() + wait_s
    while True:
        if app.should_stop or not consumer.flow_active or message.generation_id != app.consumer_generation_id:
            consumer.abandon(message)
            return False
        app.progress.retrying(monotonic())
        if (left := end - monotonic()) <= 0:
            return True
        await asyncio.sleep(min(left, 0.05))

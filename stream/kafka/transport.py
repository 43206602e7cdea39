"""Batch transport for Faust: the records that one fetch returned for one partition are ONE Faust message (or a few, if there are many).

Per-record delivery is Faust's bottleneck: a lock, several tasks and futures per record. Here an agent receives lists of aiokafka's
`ConsumerRecord`: one partition, ascending offsets. Faust's extension points, in the order in which a record passes them:

    Consumer.getmany            takes a fetch {partition: [record]}; `TimestampMerge` cuts and orders it
    Consumer._to_message        makes one message of a list
    Consumer.callback           gives it to the conductor, which queues it for the agent
    Schema.loads_key/_value     decode; here they pass the records through, so decoding and dead letters are up to the worker
    Consumer.ack, _new_offset   track which offset may be committed

Delivered messages wait in a deque per partition. A commit pops the acknowledged ones at its head, so an unacknowledged list holds back all
after it. The deque holds messages, not offsets: an ack after a rebalance marks a message that is no longer in it.
"""

from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator
from time import monotonic
from typing import Any

import faust
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage, Message
from mode.utils.futures import notify

from stream.kafka.connection import ISOLATION, pace
from stream.kafka.progress import Progress
from stream.kafka.timestamp_merge import LIMITS, Lane, MergeLimits, TimestampMerge

POLL_S = 0.02  # how soon a held list looks again whether its partner has caught up; a fetch that brings nothing wakes nobody


class _Thread(driver.AIOKafkaConsumerThread):
    """Faust's thread of the consumer, with a client that does not spin."""

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = ISOLATION  # Faust sets it only if it writes transactions itself
        return pace(consumer)


class Consumer(driver.Consumer):
    """Faust's consumer, with lists instead of records. An app with this consumer has no tables and no reply topics."""

    drain_timeout_s = 8.0  # how long a rebalance or stop waits for the batch in flight; heartbeats continue
    transport: "Transport"

    def __init__(self, transport: "Transport", callback: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(transport, callback, *args, **kwargs)
        self._deliver = self.callback
        self.callback = self._enter  # type: ignore[assignment]
        self._book: defaultdict[TP, deque[ConsumerMessage]] = defaultdict(deque)
        self._lists = TimestampMerge(transport.step_topics, self._caught_up, transport.limits)
        self._era = 0  # counts what makes fetched records stale: rebalances and seeks

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    # From the fetch to the agent

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Fetch, then yield every message that need not wait for another topic of its partition."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]
        era = self._era
        records, _ = await self._wait_next_records(min(timeout, POLL_S) if len(self._lists) else timeout)
        if records is None or self.should_stop:
            return
        if not self.flow_active or era != self._era:
            if records or len(self._lists):
                await self._seek_back()
            return
        for tp, found in records.items():
            self._lists.add(tp, found)
        now = monotonic()
        while self.flow_active and era == self._era and (piece := self._lists.take(now)) is not None:
            yield TP(*piece[0]), self._to_message(TP(*piece[0]), piece[1])

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        wanted = (active_partitions or set()) - {TP(*lane) for lane in self._lists.full()}
        if not wanted:  # an empty set would mean all partitions
            await self.sleep(timeout)
            return {}
        return await super()._getmany(wanted, timeout)

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        last = record[-1]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            last.offset,
            last.timestamp / 1000,
            last.timestamp_type,
            None,
            None,
            record,
            None,
            0,
            len(record),
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def _enter(self, message: ConsumerMessage) -> None:
        self._book[message.tp].append(message)
        self.transport.progress.delivered(message.tp, message.offset + 1, monotonic())
        await self._deliver(message)

    def on_buffer_full(self, tp: TP) -> None:
        """Do nothing: a full queue then blocks the fetch loop. Faust would skip the partition, and sleep 1 s if none remains."""

    # From the agent to the commit

    def ack(self, message: Message) -> bool:
        """Mark a list as done: its last offset may be committed once all lists before it are done too."""
        # Streams also "ack" what they skip in a rebalance or at stop; `tracked` is set only on what the agent was given.
        if message.acked or not message.tracked:
            return False
        message.acked = True
        self._unacked_messages.discard(message)
        notify(self._waiting_for_ack)
        if any(message is booked for booked in self._book[message.tp]):
            self.transport.progress.acked(message.tp, message.offset + 1, monotonic())
        return True

    def abandon(self, message: ConsumerMessage) -> None:
        """Stop waiting for a list that will not be done in this assignment. Unacknowledged, it is delivered again after the rebalance."""
        self._unacked_messages.discard(message)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        yield from (tp for tp in list(self._book) if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        book, offset = self._book[tp], None
        while book and book[0].acked:
            offset = book.popleft().offset + 1
        return offset

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Do nothing: there is always a "gap" between the last offsets of two lists."""

    async def wait_empty(self) -> None:
        """Wait for the batch in flight, in bounded time, and commit. (Faust's own method swallows cancellation and cannot time out.)"""
        end = monotonic() + self.drain_timeout_s
        while self._unacked_messages and monotonic() < end and not self.should_stop:
            await self.sleep(0.02)
        if self._unacked_messages:
            self.log.warning("gave up on %d unfinished lists; they will be delivered again", len(self._unacked_messages))
            self._unacked_messages.clear()
        await self.maybe_wait_for_commit_to_finish()  # a commit() during another one does nothing
        await self.commit_and_end_transactions()

    # Rebalances and seeks

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish and commit the batch in flight, and forget the rest."""
        self.transport.era += 1
        await super().on_partitions_revoked(revoked)  # calls wait_empty (setting stream_wait_empty)
        self._forget()
        self.transport.progress.revoked()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Start without delivered messages."""
        self.transport.era += 1
        self._forget()  # one more message may have been on its way when the flow stopped
        self.transport.progress.assigned(assigned, monotonic())
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Seek to the committed offsets, or to the beginning of partitions without one."""
        self._forget_held()
        await super().perform_seek()
        # aiokafka's seek_to_committed leaves a partition without a commit where it is: past records that were fetched and dropped.
        # Not seek_to_beginning: that waits behind a fetch of 1.5 s. Where the log begins later, aiokafka continues from there.
        if fresh := {TP(*tp): 0 for tp in self.assignment() if self._read_offset.get(TP(*tp)) is None}:
            try:
                await self.seek_wait(fresh)
            except IllegalStateError:
                self.log.info("partitions went while seeking; the next rebalance seeks")
        self._forget_held()

    async def _seek_back(self) -> None:
        try:
            await self.perform_seek()
        except Exception as error:  # noqa: BLE001 - any failure: the next rebalance seeks again
            self.log.warning("could not seek back after a rebalance: %r", error)

    def _forget(self) -> None:
        self._book.clear()
        self._unacked_messages.clear()
        self._forget_held()

    def _forget_held(self) -> None:
        self._lists.clear()
        self._era += 1

    # What the client knows

    def fetched(self, lane: Lane) -> int | None:
        """Offset up to which the client fetched a partition; None if it is not assigned to us or not known yet."""
        state = self._state(lane)
        return state.position if state is not None and state.has_valid_position else None

    def committed(self, lane: Lane) -> int | None:
        """The committed offset of a partition, as far as this worker knows."""
        return self._committed_offset.get(TP(*lane))

    def _caught_up(self, lane: Lane) -> bool:
        state = self._state(lane)
        if state is None:
            return True
        if not state.has_valid_position or state.highwater is None:
            return False
        return bool(state.position >= (state.highwater if state.lso is None else min(state.lso, state.highwater)))

    def _state(self, lane: Lane) -> Any:
        client = self._thread._consumer
        subscription = client._subscription.subscription if client is not None else None
        assignment = subscription.assignment if subscription is not None else None
        return assignment.state_value(TopicPartition(*lane)) if assignment is not None else None


class Transport(driver.Transport):
    """Creates our consumer. `step_topics`, which are merged by time, must be set before the app starts.

    `era` changes whenever partitions are revoked or assigned: between two eras another worker may have had them.
    """

    Consumer = Consumer

    def __init__(self, app: faust.App, progress: Progress, limits: MergeLimits = LIMITS) -> None:
        super().__init__(app.conf.broker_consumer, app)
        self.progress = progress
        self.limits = limits
        self.step_topics: set[str] = set()
        self.era = 0


class PassThrough(faust.Schema[Any, Any]):
    """Passes lists to the agent as they are."""

    def loads_key(self, app: Any, message: Any, **kwargs: Any) -> Any:
        """The message's key."""
        return message.key

    def loads_value(self, app: Any, message: Any, **kwargs: Any) -> Any:
        """The message's list."""
        return message.value

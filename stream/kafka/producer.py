"""Publishing: when a call returns, all in-sync replicas have acknowledged its records."""

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
    RecordListTooLargeError,
    UnknownProducerId,
)
from aiokafka.protocol.metadata import MetadataRequest

from stream.errors import PublishError
from stream.kafka.connection import Connection

log = logging.getLogger(__name__)

Headers = list[tuple[str, bytes]]


class Outgoing(NamedTuple):
    """A record to publish. A key's records go to one partition (by murmur2 unless given), in order. No `value`: the key is deleted."""

    topic: str
    key: bytes | None
    value: bytes | None
    timestamp_ms: int | None = None
    headers: Headers | None = None
    partition: int | None = None


class Unsendable(NamedTuple):
    """A record that the client or the broker refuses because of its size, and the error. No retry helps."""

    record: Outgoing
    error: KafkaError


class Outbound:
    """An idempotent producer. Belongs to the event loop in which `start` was awaited.

    A publish is tried for `give_up_after_s`, then it raises `PublishError`. A record and its framing are at most `max_record_bytes`.
    """

    def __init__(self, connection: Connection, *, give_up_after_s: float = 10.0, max_record_bytes: int = 1 << 20) -> None:
        self._connection = connection
        self._give_up_after_s = give_up_after_s
        self._max_record_bytes = max_record_bytes
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Connect, if not connected. `publish` does it too.

        Raises:
            PublishError: no broker answers.
        """
        async with self._starting:
            if self._producer is not None:
                return
            producer = AIOKafkaProducer(
                **self._connection.for_aiokafka(),
                enable_idempotence=True,  # implies acks=all
                max_batch_size=128 * 1024,
                max_request_size=self._max_record_bytes,
                request_timeout_ms=int(self._give_up_after_s * 1000),
            )
            try:
                await producer.start()
            except KafkaError as error:
                await producer.stop()
                raise PublishError(f"{error!r} while connecting") from error
            except BaseException:
                await producer.stop()
                raise
            # Where its sender ends by an error, aiokafka fails this future, and without a transaction there is none.
            producer._txn_manager._transaction_waiter = waiter = asyncio.get_running_loop().create_future()
            waiter.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            self._producer = producer

    async def ask(self, within_s: float = 3.0) -> None:
        """Check that a broker answers, connecting first if not connected.

        Raises:
            PublishError: none of them answered.
        """
        await self.start()
        if (producer := self._producer) is None:
            raise PublishError("the producer was stopped")
        client, nothing = producer.client, MetadataRequest([])  # of no topic: what is asked about one may make it
        asking = [asyncio.ensure_future(client.send(broker.nodeId, nothing)) for broker in client.cluster.brokers()]
        try:
            done, _ = await asyncio.wait(asking, timeout=within_s)
        finally:
            for question in asking:
                question.cancel()
        failures = [failure for question in done if (failure := question.exception()) is not None]
        if len(failures) == len(done):
            failure = next(iter(failures), KafkaTimeoutError(f"no answer in {within_s} s"))
            raise PublishError(repr(failure)) from failure

    async def stop(self) -> None:
        """Flush for at most a second, and close."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _close(producer)

    async def publish(self, records: Sequence[Outgoing | tuple[Any, ...]]) -> None:
        """Send all records and return when the brokers have acknowledged each.

        Raises:
            PublishError: an outage; send all of them again.
            KafkaError: no retry helps (not authorised), or a record is too large; then the others are sent.
        """
        if unsendable := await self.deliver(records):
            raise unsendable[0].error

    async def deliver(self, records: Sequence[Outgoing | tuple[Any, ...]]) -> list[Unsendable]:
        """Send all records and return when the brokers have acknowledged each. Returns those that are too large for them.

        Raises:
            PublishError: an outage; send all of them again.
            KafkaError: no retry helps (not authorised).
        """
        if not records:
            return []
        await self.start()
        producer = self._producer
        if producer is None:
            raise PublishError("the producer was stopped")
        failures = await self._send(producer, [Outgoing(*record) for record in records])
        unsendable = [Unsendable(record, error) for record, error in failures if isinstance(error, _OversizedError)]
        failures = [failure for failure in failures if not isinstance(failure[1], _OversizedError)]
        refusal = next((error for _, error in failures if isinstance(error, _TOO_LARGE)), None)
        if refusal is not None:  # of a batch: most of its records may be small enough
            await self._discard(producer, refusal)
            failures = await self._send_singly([record for record, _ in failures])
            unsendable += [Unsendable(record, error) for record, error in failures if isinstance(error, _TOO_LARGE)]
            failures = [failure for failure in failures if not isinstance(failure[1], _TOO_LARGE)]
        if failures:
            error = failures[0][1]
            if not outage(error):
                raise error
            # An idempotent producer retries for ever, and may be left with a sequence that the broker refuses: begin a new one.
            await self._discard(producer, error)
            raise PublishError(repr(error)) from error
        return unsendable

    async def _send(self, producer: AIOKafkaProducer, records: Sequence[Outgoing]) -> list[tuple[Outgoing, KafkaError]]:
        """The records that were not acknowledged, each with its error, in order."""
        deadline = monotonic() + self._give_up_after_s
        sent: dict[asyncio.Future[object], Outgoing] = {}
        failures: list[tuple[Outgoing, KafkaError]] = []
        for record in records:
            topic, key, value, timestamp_ms, headers, partition = record
            try:
                sent[await producer.send(topic, value, key, partition, timestamp_ms, headers)] = record
            except MessageSizeTooLargeError as error:
                failures.append((record, _OversizedError(*error.args)))
            except KafkaError as error:
                failures.append((record, error))
                break
        if sent:
            done, late = await asyncio.wait(sent, timeout=max(0.0, deadline - monotonic()))
            failures += [(record, wrong) for future, record in sent.items() if future in done and (wrong := _error(future)) is not None]
            late_error = KafkaTimeoutError(f"{len(late)} of {len(records)} records in {self._give_up_after_s} s")
            failures += [(record, late_error) for future, record in sent.items() if future in late]
        return failures

    async def _send_singly(self, records: Sequence[Outgoing]) -> list[tuple[Outgoing, KafkaError]]:
        """As `_send`, each record in a batch of its own. Not idempotent: the broker refuses what follows a batch that it refused."""
        producer = AIOKafkaProducer(
            **self._connection.for_aiokafka(),
            acks="all",
            max_batch_size=1,
            max_request_size=self._max_record_bytes,
            request_timeout_ms=int(self._give_up_after_s * 1000),
        )
        try:
            await producer.start()
            failures = await self._send(producer, records)
        except KafkaError as error:
            raise PublishError(f"{error!r} while connecting") from error
        finally:
            await _close(producer)
        return failures

    async def _discard(self, producer: AIOKafkaProducer, error: BaseException) -> None:
        if self._producer is producer:
            self._producer = None
            await _close(producer, error)


class _OversizedError(MessageSizeTooLargeError):  # type: ignore[misc]  # aiokafka has no types
    """The client refused the record before sending it."""


_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


def _error(confirmation: asyncio.Future[object]) -> KafkaError | None:
    """The error of a record that is done, if any."""
    error = confirmation.exception()
    if error is None or isinstance(error, KafkaError):
        return error
    raise error


async def _close(producer: AIOKafkaProducer, failure: BaseException | None = None) -> None:
    """Close a producer that may have no broker: its own stop() waits for pending records without limit."""
    accumulator = producer._message_accumulator
    flushing = asyncio.ensure_future(accumulator.flush())
    if failure is None:
        await asyncio.wait([flushing], timeout=1.0)
    accumulator.fail_all(failure or KafkaTimeoutError("the producer was stopped"))
    flushing.cancel()
    try:
        await producer.stop()
    except (KafkaError, KeyError) as error:  # its sender trips over a batch that failed while it was being sent
        log.debug("closing a producer without its broker: %r", error)
        await producer.client.close()


# Not retriable by the same producer; a new one may succeed.
_LOST_PRODUCER = (KafkaTimeoutError, OutOfOrderSequenceNumber, UnknownProducerId, ProducerFenced, ProducerClosed)


def outage(error: BaseException) -> bool:
    """Whether an error of aiokafka is an outage: the same may succeed later."""
    return isinstance(error, KafkaError) and (error.retriable or isinstance(error, _LOST_PRODUCER))

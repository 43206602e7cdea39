"""Publishing: records in, confirmed by all in-sync replicas when the call returns."""

import asyncio
from collections.abc import Sequence
from time import time
from typing import NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream.connection import Connection

SENT_HEADER = "sent_ms"

Headers = list[tuple[str, bytes]]


class Outgoing(NamedTuple):
    """A record to publish. Records of one key go to one partition (murmur2), in order. No `value`: the key is deleted."""

    topic: str
    key: bytes | None
    value: bytes | None
    timestamp_ms: int | None = None
    headers: Headers | None = None


class PublishFailed(Exception):
    """The broker did not confirm all records. Some may have been written: publish all of them again."""

    def __init__(self, what: str, retry_after_s: float = 0.5) -> None:
        super().__init__(f"the broker did not confirm: {what}; check EVERLONG_KAFKA_BOOTSTRAP and that the brokers are up")
        self.retry_after_s = retry_after_s


class Outbound:
    """An idempotent producer. Belongs to the event loop in which `start` was awaited.

    A publish is tried for `give_up_after_s`, then it raises `PublishFailed`.
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
            PublishFailed: no broker answers.
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
                raise PublishFailed(f"{error!r} while connecting") from error
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer

    async def stop(self) -> None:
        """Send what is under way and close."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def publish(self, records: Sequence[Outgoing | tuple[str, bytes | None, bytes | None, int | None, Headers | None]]) -> None:
        """Send all records and return when the brokers confirmed each.

        Raises:
            PublishFailed: an outage; send all of them again.
            KafkaError: a record that no retry helps (too large, not authorised).
        """
        if not records:
            return
        await self.start()
        producer = self._producer
        if producer is None:
            raise PublishFailed("the producer was stopped")
        confirmations: list[asyncio.Future[object]] = []
        failure: BaseException | None = None
        try:
            for topic, key, value, timestamp_ms, headers in records:
                confirmations.append(await producer.send(topic, value, key, timestamp_ms=timestamp_ms, headers=headers))
        except KafkaError as error:
            failure = error
        results = await asyncio.gather(*confirmations, return_exceptions=True)
        failure = failure or next((result for result in results if isinstance(result, BaseException)), None)
        if failure is not None:
            await self._fail(failure)

    async def _fail(self, failure: BaseException) -> None:
        if not _worth_retrying(failure):
            raise failure
        # After an outage an idempotent producer may be left with a sequence that the broker refuses for ever: begin a new one.
        await self.stop()
        raise PublishFailed(repr(failure)) from failure


def _worth_retrying(error: BaseException) -> bool:
    return isinstance(error, KafkaError) and (error.retriable or type(error).__name__ in _LOST_SEQUENCE)


_LOST_SEQUENCE = {"OutOfOrderSequenceNumber", "UnknownProducerId", "InvalidProducerEpoch", "ProducerFenced", "ProducerClosed"}


def sent_header(now_ms: int | None = None) -> tuple[str, bytes]:
    """The header that says when a record was sent (wall clock, ms), now if not given."""
    return SENT_HEADER, str(int(time() * 1000) if now_ms is None else now_ms).encode()


def sent_ms(headers: Sequence[tuple[str, bytes]] | None, default: int) -> int:
    """When a record was sent (wall clock, ms) by its headers, `default` where they do not say or not properly."""
    for name, value in headers or ():
        if name == SENT_HEADER and value.isdigit() and len(value) < 16:
            return int(value)
    return default

"""A thread that reads all partitions of a compacted topic, from the start or from given offsets, and follows it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from threading import Event, Thread
from time import monotonic
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from features.retries import RetryPolicy
from stream.kafka.access import partitions_of
from stream.kafka.connection import Connection

log = logging.getLogger(__name__)

IDLE_S = 0.05  # between empty fetches: some brokers answer them at once
MOST_RECORDS = 2000
READING = RetryPolicy(first_s=1.0, longest_s=1.0, give_up_after_s=float("inf"))  # of threads that follow a topic
Offsets = dict[int, int]  # by partition, the offset of its next record
Apply = Callable[[Sequence[Any], Offsets], None]  # records, each partition's in order, and the offsets behind them


class TopicReader:
    """Applies every record, and knows when it has caught up with the end of the topic at its start.

    `apply` is called in the thread, once before any record, then with each batch. An outage of the broker is retried; an exception of
    `apply` ends the thread.
    """

    def __init__(self, connection: Connection, topic: str, apply: Apply, start: Mapping[int, int] | None = None) -> None:
        self._connection, self._topic, self._apply = connection, topic, apply
        self._offsets: Offsets = dict(start or {})
        self._stopping, self._caught_up = Event(), Event()
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._run, name=f"reader of {topic}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def catch_up(self, stopping: Event, seconds: float) -> None:
        """Wait until everything that the topic held at the start has been applied, or `stopping` is set.

        Raises:
            TimeoutError: it took longer than `seconds`. The exception that ended the thread, if it ended.
        """
        end = monotonic() + seconds
        while not self.caught_up and not stopping.wait(0.02):
            if self._failure is not None:
                raise self._failure
            if monotonic() > end:
                raise TimeoutError(f"{self._topic} was not read within {seconds:.0f} s: is the broker up?")

    @property
    def failure(self) -> BaseException | None:
        """The exception that ended the thread; None while it runs."""
        return self._failure

    @property
    def caught_up(self) -> bool:
        """Whether everything that the topic held at the start has been applied."""
        return self._caught_up.is_set()

    def _run(self) -> None:
        def tell(error: Exception, _: int) -> None:
            log.warning("reading %s failed, will try again: %r", self._topic, error)

        try:
            READING.retrying(lambda error: isinstance(error, KafkaError), tell, self._stopping)(self._read)
        except Exception as error:
            if not (isinstance(error, KafkaError) and self._stopping.is_set()):
                self._failure = error
                log.exception("the reader of %s failed", self._topic)

    def _read(self) -> None:
        """Read from the offsets until stopped."""
        with closing(self._connection.consumer()) as consumer:
            partitions = _partitions(self._connection, consumer, self._topic, self._stopping)
            consumer.assign(partitions)
            first = consumer.beginning_offsets(partitions)
            for partition in partitions:
                consumer.seek(partition, self._offsets.setdefault(partition.partition, first[partition]))
            ends = consumer.end_offsets(partitions)
            self._apply([], dict(self._offsets))
            while not self._stopping.is_set():
                found = consumer.poll(timeout_ms=0, max_records=MOST_RECORDS)
                offsets = {partition.partition: consumer.position(partition) for partition in partitions}
                if found or offsets != self._offsets:
                    self._apply([record for records in found.values() for record in records], offsets)
                    self._offsets = offsets
                if not found:
                    self._stopping.wait(IDLE_S)
                if not self._caught_up.is_set() and all(offsets[partition.partition] >= end for partition, end in ends.items()):
                    self._caught_up.set()


def _partitions(connection: Connection, consumer: KafkaConsumer, topic: str, stopping: Event) -> list[TopicPartition]:
    while not stopping.is_set():
        if found := partitions_of(connection, consumer, topic):
            return found
        stopping.wait(0.2)
    return []


def ranges(connection: Connection, topic: str) -> dict[int, tuple[int, int]]:
    """The first offset and the end of each partition of a topic; empty if there is no such topic.

    Raises:
        KafkaError: no broker answers.
        NotAuthorizedError: we may not read it.
    """
    with closing(connection.consumer()) as consumer:
        partitions = partitions_of(connection, consumer, topic)
        if not partitions:
            return {}
        first, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        return {partition.partition: (first[partition], ends[partition]) for partition in partitions}

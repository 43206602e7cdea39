"""The tail of topic `item-codes`: every refresh worker reads all partitions from the start and keeps reading."""

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from threading import Event, Thread
from time import sleep

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from stream.connection import Connection
from stream.messages import ItemCode

log = logging.getLogger(__name__)

IDLE_S = 0.05  # between looks while there is nothing: a broker that does not hold fetches is not asked without end
MOST_RECORDS = 2000
Codes = Sequence[tuple[str, ItemCode | None]]  # item id and its code, None: the item is gone


class CodeTail:
    """A thread that hands every code on, oldest first, and says when it has reached what was there at the start.

    `apply` is called in the thread, with the newest word on each item of a batch. A broker that does not answer is asked
    again; a message that is no code is logged and passed over, since the topic is ours alone.
    """

    def __init__(self, connection: Connection, topic: str, apply: Callable[[Codes], None]) -> None:
        self._connection, self._topic, self._apply = connection, topic, apply
        self._stopping, self._caught_up = Event(), Event()
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._run, name="code-tail", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    @property
    def failure(self) -> BaseException | None:
        """What ended the thread, None while it runs."""
        return self._failure

    @property
    def caught_up(self) -> bool:
        """Whether all that the topic held when the tail began has been applied."""
        return self._caught_up.is_set()

    def _run(self) -> None:
        try:
            places: dict[TopicPartition, int] = {}
            while not self._stopping.is_set():
                try:
                    self._read(places)
                except KafkaError as error:
                    log.warning("the tail of %s lost the broker, will try again: %r", self._topic, error)
                    self._stopping.wait(1.0)
        except Exception as error:
            self._failure = error
            log.exception("the tail of %s ended", self._topic)

    def _read(self, places: dict[TopicPartition, int]) -> None:
        """Read on from `places`, which it keeps, until stopped."""
        options = {**self._connection.for_kafka_python(), "enable_auto_commit": False, "auto_offset_reset": "earliest"}
        with closing(KafkaConsumer(**options)) as consumer:
            partitions = self._partitions(consumer)
            consumer.assign(partitions)
            first = consumer.beginning_offsets(partitions)
            for partition in partitions:
                consumer.seek(partition, places.setdefault(partition, first[partition]))
            ends = consumer.end_offsets(partitions)
            while not self._stopping.is_set():
                found = consumer.poll(timeout_ms=0, max_records=MOST_RECORDS)
                self._apply_records([record for records in found.values() for record in records])
                if not found:
                    self._stopping.wait(IDLE_S)
                for partition in partitions:
                    places[partition] = consumer.position(partition)
                if not self._caught_up.is_set() and all(places[partition] >= ends[partition] for partition in partitions):
                    self._caught_up.set()

    def _partitions(self, consumer: KafkaConsumer) -> list[TopicPartition]:
        while not self._stopping.is_set():
            if numbers := consumer.partitions_for_topic(self._topic):
                return [TopicPartition(self._topic, number) for number in sorted(numbers)]
            sleep(0.2)
        return []

    def _apply_records(self, records: Sequence[object]) -> None:
        codes: dict[str, ItemCode | None] = {}
        for record in records:
            key, value = record.key, record.value  # type: ignore[attr-defined]
            try:
                codes[key.decode()] = None if value is None else msgspec.json.decode(value, type=ItemCode)
            except (msgspec.MsgspecError, UnicodeDecodeError, AttributeError) as error:
                log.error("a record of %s is no item code and is passed over: %r", self._topic, error)
        if codes:
            self._apply(list(codes.items()))

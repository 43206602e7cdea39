"""Reading the log again from its beginning, for the few users whose rows must be rebuilt."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from time import monotonic
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from features.events import Topic
from stream.errors import LogUnavailableError
from stream.kafka.connection import Connection
from stream.pipelines.mending import SOURCES, History

POLL_MS = 500
SILENCE_S = 30.0  # without progress the read fails, and is retried


class KafkaPast:
    """Reads partitions of clicks, queries and orders. It takes as long as the partitions are: tens of thousands of records a second.

    `alive` is called regularly meanwhile.
    """

    def __init__(self, connection: Connection, prefix: str, alive: Callable[[], object] = lambda: None) -> None:
        self._connection, self._prefix, self._alive = connection, prefix, alive

    def read(self, partition: int, keys: Collection[bytes], upto: Mapping[Topic, int]) -> History:
        """See `stream.pipelines.mending.Past`."""
        places = {source: TopicPartition(self._prefix + source.value, partition) for source in SOURCES}
        try:
            with closing(self._connection.consumer()) as consumer:
                consumer.assign(list(places.values()))
                begins = consumer.beginning_offsets(list(places.values()))
                log_ends = consumer.end_offsets(list(places.values()))
                ends = {place: min(log_ends[place], upto.get(source, log_ends[place])) for source, place in places.items()}
                records: dict[Topic, list[Any]] = {source: [] for source in SOURCES}
                for source, place in places.items():
                    records[source] = [r for r in self._records(consumer, place, begins[place], ends[place]) if r.key in keys]
        except KafkaError as error:
            raise LogUnavailableError(repr(error)) from error
        return History(records, {s: begins[p] for s, p in places.items()}, {s: ends[p] for s, p in places.items()})

    def _records(self, consumer: KafkaConsumer, place: TopicPartition, begin: int, end: int) -> Iterator[Any]:
        """The records of a partition below `end`."""
        consumer.assign([place])
        consumer.seek(place, begin)
        at, moved_s = begin, monotonic()
        while at < end:
            for record in consumer.poll(timeout_ms=POLL_MS).get(place, ()):
                if record.offset < end:
                    yield record
            self._alive()
            before, at = at, consumer.position(place)
            if at > before:
                moved_s = monotonic()
            elif monotonic() - moved_s > SILENCE_S:
                raise LogUnavailableError(f"{place.topic}/{place.partition} stands at {at} of {end}")

"""Dead letters: their records, and reading, finding and replaying them.

Replaying one is harmless: if its event is accepted this time, it is identified by its id.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import msgspec
from kafka import KafkaProducer, TopicPartition

from stream.errors import NoSuchDeadLetterError, TruncatedDeadLetterError
from stream.kafka.access import authorized, partitions_of
from stream.kafka.connection import Connection
from stream.kafka.messages import DeadLetter, Skipped, decode
from stream.kafka.producer import Outgoing
from stream.kafka.topics import DEAD_LETTERS, prefixed

SILENCE_MS = 1000


def outgoing(letter: DeadLetter, prefix: str) -> Outgoing:
    """The record of a dead letter; its key names the topic and partition of the event."""
    return Outgoing(prefixed(prefix, DEAD_LETTERS), f"{letter.topic}/{letter.partition}".encode(), msgspec.json.encode(letter))


class LetterPlace(NamedTuple):
    """The position of a dead letter in the topic of dead letters, written `partition:offset`."""

    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> "LetterPlace":
        """The place that `partition:offset` names.

        Raises:
            ValueError: `text` has another form.
        """
        partition, colon, offset = text.partition(":")
        if not (colon and partition.isdecimal() and offset.isdecimal()):
            raise ValueError(f"{text!r} is not a partition:offset such as 0:17; `everlong dlq list` shows them")
        return cls(int(partition), int(offset))

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


class FoundLetter(NamedTuple):
    """A dead letter, its position, and when it was written (wall clock, ms)."""

    place: LetterPlace
    written_ms: int
    letter: DeadLetter


class LetterFilter(NamedTuple):
    """A filter of dead letters: by source topic (the broker's name), by reason, and by time of writing (wall clock, ms)."""

    topic: str | None = None
    reason: str | None = None
    since_ms: int = 0

    def accepts(self, found: FoundLetter) -> bool:
        """Whether this dead letter passes the filter."""
        return self.topic in (None, found.letter.topic) and self.reason in (None, found.letter.reason) and found.written_ms >= self.since_ms


def read(connection: Connection, topic: str, wanted: LetterFilter | None = None) -> Iterator[FoundLetter]:
    """The dead letters in `topic`, partition by partition, oldest first. Invalid records are left out.

    Raises:
        NotAuthorizedError: we may not read the topic.
    """
    wanted = wanted or LetterFilter()
    with closing(connection.consumer()) as consumer, authorized(connection, f"read topic {topic}"):
        places = partitions_of(connection, consumer, topic)
        ends = consumer.end_offsets(places) if places else {}
        for place in places:
            consumer.assign([place])
            consumer.seek_to_beginning(place)
            while consumer.position(place) < ends[place]:
                records = consumer.poll(timeout_ms=SILENCE_MS).get(place, ())
                for record in records:
                    found = _found(record)
                    if record.offset < ends[place] and found is not None and wanted.accepts(found):
                        yield found


def find(connection: Connection, topic: str, place: LetterPlace) -> FoundLetter:
    """The dead letter at a position.

    Raises:
        NoSuchDeadLetterError: there is none.
    """
    with closing(connection.consumer()) as consumer:
        partition = TopicPartition(topic, place.partition)
        if partition in partitions_of(connection, consumer, topic):
            consumer.assign([partition])
            first, end = consumer.beginning_offsets([partition])[partition], consumer.end_offsets([partition])[partition]
            if first <= place.offset < end:
                consumer.seek(partition, place.offset)
                for record in consumer.poll(timeout_ms=10 * SILENCE_MS, max_records=1).get(partition, ()):
                    found = _found(record)
                    if record.offset == place.offset and found is not None:
                        return found
    raise NoSuchDeadLetterError(f"no dead letter at {place}; `everlong dlq list` shows them")


def replay(connection: Connection, letters: Sequence[DeadLetter], sent_ms: int) -> int:
    """Publish the original bytes, key and timestamp to the original topics again; returns how many.

    Raises:
        TruncatedDeadLetterError: one of them is truncated; none was sent.
    """
    for letter in letters:
        if letter.cut_bytes:
            raise TruncatedDeadLetterError(f"{letter.topic} {letter.partition}:{letter.offset}", letter.cut_bytes)
    headers = [("sent_ms", str(sent_ms).encode())]
    with closing(KafkaProducer(**connection.for_kafka_python(), acks="all")) as producer:
        sent = []
        for letter in letters:
            value = b"" if letter.key is None and letter.value is None else letter.value  # the client sends no record without both
            ts = letter.ts if letter.ts >= 0 else None
            sent.append(producer.send(letter.topic, value, key=letter.key, headers=headers, timestamp_ms=ts))
        for future in sent:
            future.get(30)
    return len(sent)


def _found(record: object) -> FoundLetter | None:
    letter = decode(DeadLetter, record.value)  # type: ignore[attr-defined]
    if isinstance(letter, Skipped):
        return None
    return FoundLetter(LetterPlace(record.partition, record.offset), record.timestamp, letter)  # type: ignore[attr-defined]

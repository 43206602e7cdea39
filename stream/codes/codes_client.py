"""What a command says to the keeper of codes and hears from it, through the topic `codebooks`. Blocking."""

import uuid
from collections.abc import Iterator
from contextlib import closing
from threading import Event
from time import monotonic, sleep
from types import TracebackType
from typing import Any

import msgspec
from kafka import KafkaProducer

from stream.codes.codebook_reader import Codebooks
from stream.codes.codebook_registry import key_of
from stream.errors import NoAnswerError
from stream.kafka.connection import Connection
from stream.kafka.messages import CodesAnswer, CodesRequest

READ_S = 20.0
LOOK_S = 0.05


class Desk:
    """The topic as it stands when entered, and as it goes on.

    Raises (on entering):
        TimeoutError: the topic could not be read.
    """

    def __init__(self, connection: Connection, topic: str) -> None:
        self._connection, self._topic = connection, topic
        self._codebooks = Codebooks(connection, topic)
        self.book = self._codebooks.book

    def __enter__(self) -> "Desk":
        self._codebooks.start(Event(), READ_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._codebooks.stop()

    def ask(self, what: Any, how: Any, to: str, now_ms: int) -> CodesRequest:
        """Put a request into the topic; it takes the place of one that nobody answered."""
        request = CodesRequest(id=uuid.uuid4().hex, what=what, how=how, to=to, asked_ms=now_ms)
        with closing(KafkaProducer(**self._connection.for_kafka_python(), acks="all")) as producer:
            producer.send(self._topic, msgspec.json.encode(request), key=key_of(request)).get(10)
        return request

    def answers(self, request: CodesRequest, wait_s: float) -> Iterator[CodesAnswer]:
        """Every answer as it comes; the last one is not `working`.

        Raises:
            NoAnswerError: nothing new came for `wait_s`.
        """
        seen, heard_at = None, monotonic()
        while True:
            answer = self.book.answer
            if answer is not None and answer.id == request.id and answer != seen:
                seen, heard_at = answer, monotonic()
                yield answer
                if answer.state != "working":
                    return
            elif monotonic() - heard_at > wait_s:
                said = "began and then said nothing" if seen is not None else "answered"
                none = "the catalogue worker" if seen is not None else "no catalogue worker"
                raise NoAnswerError(
                    f"{none} {said} for {wait_s:.0f} s: is one running, with a bundle, and has it partition 0 of the topic of items? "
                    "The codes in use stay; a request that nobody began lapses after two minutes"
                )
            else:
                sleep(LOOK_S)

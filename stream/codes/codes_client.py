"""The commands' side of the code manager: requests and their answers through the topic `codebooks`. Blocking."""

import uuid
from collections.abc import Iterator
from contextlib import closing
from threading import Event
from time import monotonic, sleep
from types import TracebackType
from typing import Any

import msgspec
from kafka import KafkaProducer

from stream.codes.codebook_registry import key_of
from stream.codes.readers import CodebookReader
from stream.errors import NoAnswerError
from stream.kafka.connection import Connection
from stream.kafka.messages import CodesAnswer, CodesRequest

READ_S = 20.0
LOOK_S = 0.05


class CodesClient:
    """A context in which `registry` follows the topic.

    Raises (on entering):
        TimeoutError: the topic could not be read.
    """

    def __init__(self, connection: Connection, topic: str) -> None:
        self._connection, self._topic = connection, topic
        self._reader = CodebookReader(connection, topic)
        self.registry = self._reader.registry

    def __enter__(self) -> "CodesClient":
        self._reader.start(Event(), READ_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._reader.stop()

    def request(self, what: Any, how: Any, to: str, now_ms: int) -> CodesRequest:
        """Publish a request. It replaces one that nobody has answered."""
        request = CodesRequest(id=uuid.uuid4().hex, what=what, how=how, to=to, asked_ms=now_ms)
        with closing(KafkaProducer(**self._connection.for_kafka_python(), acks="all")) as producer:
            producer.send(self._topic, msgspec.json.encode(request), key=key_of(request)).get(10)
        return request

    def answers(self, request: CodesRequest, wait_s: float) -> Iterator[CodesAnswer]:
        """Each new answer to a request; the last one is not `working`.

        Raises:
            NoAnswerError: nothing new came for `wait_s`.
        """
        seen, seen_at = None, monotonic()
        while True:
            answer = self.registry.answer
            if answer is not None and answer.id == request.id and answer != seen:
                seen, seen_at = answer, monotonic()
                yield answer
                if answer.state != "working":
                    return
            elif monotonic() - seen_at > wait_s:
                problem = "the catalogue worker began and then sent nothing" if seen is not None else "no catalogue worker answered"
                raise NoAnswerError(
                    f"{problem} for {wait_s:.0f} s: is one running, with a bundle, and has it partition 0 of the topic of items? "
                    "The codes in use stay; a request that nobody began expires after two minutes"
                )
            else:
                sleep(LOOK_S)

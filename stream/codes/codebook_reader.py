"""The tail of topic `codebooks`, and the book that it keeps."""

from threading import Event

from stream.codes.codebook_registry import Book
from stream.kafka.connection import Connection
from stream.kafka.skips import Skips
from stream.kafka.topic_reader import Tail

READ_S = 60.0


class Codebooks:
    """A book that follows the topic."""

    def __init__(self, connection: Connection, topic: str, skips: Skips | None = None) -> None:
        self.book = Book(skips)
        self._tail = Tail(connection, topic, self.book.apply)

    def start(self, stopping: Event, seconds: float = READ_S) -> None:
        """Return once the book holds what the topic held.

        Raises:
            TimeoutError: it could not be read in time.
        """
        self._tail.start()
        try:
            self._tail.catch_up(stopping, seconds)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Follow it no longer."""
        self._tail.stop()

    @property
    def failure(self) -> BaseException | None:
        """What ended the tail, None while it runs."""
        return self._tail.failure

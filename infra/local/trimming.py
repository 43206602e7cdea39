"""Keeps the embedded broker's log small while a command runs, and throttles producers that are faster than the workers."""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from threading import Event, Thread

from kafka.errors import KafkaError

from infra.errors import LogFullError
from stream.kafka.bounded_log import MB, BoundedLog

log = logging.getLogger(__name__)

EVERY_S = 2.0
ROOM_BYTES = 16 * MB  # waiting for the workers before producers wait too
FULL_BYTES = 128 * MB  # waiting before the command stops
CHECK_BYTES = 2 * MB  # sent between two checks of the backlog
POLL_S = 0.2
PATIENCE_S = 300.0


class Trimmer:
    """A thread that trims the log every `EVERY_S` seconds until stopped."""

    def __init__(self, open_log: Callable[[], BoundedLog]) -> None:
        self._open = open_log
        self._waiting = 0
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="trimmer", daemon=True)

    def start(self) -> None:
        """Configure the topics and start the thread.

        Raises:
            KafkaError: the broker does not answer.
        """
        with closing(self._open()) as bounded:
            bounded.configure()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=15)

    def check(self) -> None:
        """Raise if the broker would take too much memory.

        Raises:
            LogFullError: more than `FULL_BYTES` wait for the workers.
        """
        if self._waiting > FULL_BYTES:
            raise LogFullError(
                self._waiting, "look into their logs, send events more slowly or use Kafka; the next start continues from here"
            )

    def _run(self) -> None:
        told = False
        while not self._stopping.wait(EVERY_S):
            try:
                with closing(self._open()) as bounded:
                    while not self._stopping.is_set():
                        self._waiting, told = bounded.trim(), False
                        self._stopping.wait(EVERY_S)
            except KafkaError as error:
                if not told:
                    log.warning("the embedded broker's log was not trimmed, will try again: %r", error)
                told = True


class Room:
    """Makes a producer wait while more than `ROOM_BYTES` wait for the workers. Belongs to one thread; blocking."""

    def __init__(self, open_log: Callable[[], BoundedLog]) -> None:
        self._open = open_log
        self._bounded: BoundedLog | None = None
        self._sent = 0

    def sending(self, size: int) -> bool:
        """Count bytes about to be sent; returns whether to call `wait` first."""
        self._sent += size
        return self._sent >= CHECK_BYTES

    def wait(self) -> None:
        """Block until there is room.

        Raises:
            LogFullError: the workers applied nothing for `PATIENCE_S` seconds.
            KafkaError: the broker does not answer.
        """
        self._bounded = self._bounded or self._open()
        least, since = self._bounded.waiting(), time.monotonic()
        while (waiting := self._bounded.waiting()) > ROOM_BYTES:
            if waiting < least:
                least, since = waiting, time.monotonic()
            if time.monotonic() > since + PATIENCE_S:
                raise LogFullError(waiting, f"they applied nothing for {PATIENCE_S:.0f} s; look into their logs")
            time.sleep(POLL_S)
        self._sent = 0

    def close(self) -> None:
        """Close the connection."""
        if self._bounded is not None:
            self._bounded.close()

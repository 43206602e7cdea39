"""How the keeper of codes speaks: what it needs of the world, records published with retries, and answers to requests."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

from models.codes.drift import Decision, Drift
from stream.codes.codebook_registry import Book, Record, key_of
from stream.errors import PublishError
from stream.kafka.messages import CodesAnswer, CodesRequest, CurrentCodes
from stream.kafka.producer import Outgoing

log = logging.getLogger(__name__)

HEARD_S, LOOK_S = 10.0, 0.02  # how long to wait for our own record, and between looks
State = Literal["working", "done", "refused", "failed"]


class Pace(NamedTuple):
    """Seconds between measurements and, at least, between refreshes that nobody asked for; how a refresh goes about its work.

    `announce_s` is what workers get to notice an announcement before codes are compared; a failed publication is tried
    `tries` times, with waits that double up to `longest_wait_s`; a request older than `request_age_s` is not begun.
    """

    measure_s: float = 60.0
    rest_s: float = 600.0
    announce_s: float = 1.0
    batch: int = 1000
    tries: int = 6
    longest_wait_s: float = 10.0
    request_age_s: float = 120.0


class Outside(Protocol):
    """What the keeper needs of the world."""

    def publish(self, records: Sequence[Outgoing]) -> None:
        """Return once the broker has them. Raises PublishError; or LeadershipLostError, as `wait` does."""

    def ends(self) -> Mapping[int, int]:
        """The ends of `item-codes` now, by partition. Raises PublishError."""

    def wait(self, seconds: float) -> None:
        """Raises LeadershipLostError where another one is to be the keeper, or the worker stops."""

    def measured(self, generation: str, drift: Drift, decision: Decision) -> None:
        """Told of every measurement."""

    def refreshed(self, how: str, result: str, seconds: float, changed: int) -> None:
        """Told of every refresh and rollback; `result` is done, none, refused or failed."""


class Topics(NamedTuple):
    """The broker's names."""

    codebooks: str
    item_codes: str


class Voice:
    """Publishes what a keeper says. Every publication is tried a few times.

    Raises:
        PublishError: all tries failed. LeadershipLostError: between two of them.
    """

    def __init__(self, outside: Outside, topics: Topics, book: Book, pace: Pace, clock_ms: Callable[[], int]) -> None:
        self._outside, self._topics, self._book, self._pace, self._clock_ms = outside, topics, book, pace, clock_ms

    def say(self, *records: Record) -> None:
        """Publish records of the topic of codebooks."""
        self.send([Outgoing(self._topics.codebooks, key_of(record), msgspec.json.encode(record)) for record in records])

    def take_back(self, generations: Sequence[str]) -> None:
        """Remove announcements of generations."""
        self.send([Outgoing(self._topics.codebooks, f"generation:{generation}".encode(), None) for generation in generations])

    def name(self, current: CurrentCodes) -> None:
        """Say which generation is in use, and wait until the book says so: what is done next reads it there."""
        self.say(current)
        for _ in range(int(HEARD_S / LOOK_S)):
            if self._book.currents.get(current.bundle) == current:
                return
            self._outside.wait(LOOK_S)
        log.warning("the topic of codebooks does not give back what was published to it")

    def answer(self, request: CodesRequest | None, state: State, detail: str, generation: str = "", done: int = 0, total: int = 0) -> None:
        """Answer a request, if it is one."""
        if request is not None:
            at_ms = self._clock_ms()
            self.say(CodesAnswer(id=request.id, state=state, detail=detail, at_ms=at_ms, generation=generation, done=done, total=total))

    def send(self, records: Sequence[Outgoing]) -> None:
        """Publish records."""
        for wait_s in self._waits():
            self._outside.wait(0.0)
            try:
                self._outside.publish(records)
                return
            except PublishError as error:
                log.warning("codes were not published, will try again: %s", error)
                self._outside.wait(wait_s)
        self._outside.publish(records)

    def ends(self) -> dict[int, int]:
        """The ends of `item-codes` now, by partition."""
        for wait_s in self._waits():
            try:
                return dict(self._outside.ends())
            except PublishError:
                self._outside.wait(wait_s)
        return dict(self._outside.ends())

    def _waits(self) -> Iterator[float]:
        return (min(self._pace.longest_wait_s, 0.5 * 2**tries) for tries in range(self._pace.tries - 1))


def figures(drift: Drift) -> dict[str, float]:
    """The figures of a measurement that are shown: of sub-spaces the worst."""
    return {
        "sample": float(drift.sample),
        "distortion": drift.distortion,
        "relative": drift.relative,
        "perplexity": min(drift.perplexity),
        "usage": drift.usage,
        "dead": float(sum(drift.dead)),
        "overlap": drift.overlap,
        "lost": drift.lost,
        "stale": drift.stale,
        "changed_items": drift.changed_items,
        "warm_gain": drift.warm_gain,
        "cold_gain": drift.cold_gain,
    }

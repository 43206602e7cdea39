"""What the code manager publishes: codebooks and which one is current, with retries, and answers to requests."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

from models.codes.drift import Decision, Drift
from stream.codes.codebook_registry import CodebookRegistry, Record, key_of, key_of_codebook
from stream.errors import PublishError
from stream.kafka.messages import CodesAnswer, CodesRequest, CurrentCodes
from stream.kafka.producer import Outgoing

log = logging.getLogger(__name__)

READ_BACK_S, LOOK_S = 10.0, 0.02  # how long to wait for our own record, and between looks
State = Literal["working", "done", "refused", "failed"]


class Pace(NamedTuple):
    """Seconds between measurements, and at least between automatic refreshes; how a refresh goes about its work.

    After an announcement workers get `announce_s` to notice it before codes are compared. A failed publication is tried `tries` times,
    with waits that double up to `longest_wait_s`. A request older than `request_age_s` is not begun.
    """

    measure_s: float = 60.0
    rest_s: float = 600.0
    announce_s: float = 1.0
    batch: int = 1000
    tries: int = 6
    longest_wait_s: float = 10.0
    request_age_s: float = 120.0


class Ports(Protocol):
    """What the code manager needs from outside: the broker, its leadership, and an observer."""

    def publish(self, records: Sequence[Outgoing]) -> None:
        """Return once the broker acknowledged the records.

        Raises:
            PublishError: an outage. LeadershipLostError: as `wait`.
        """

    def ends(self) -> Mapping[int, int]:
        """The present ends of `item-codes`, by partition.

        Raises:
            PublishError: an outage.
        """

    def wait(self, seconds: float) -> None:
        """Sleep.

        Raises:
            LeadershipLostError: another worker is to manage the codes, or this one stops.
        """

    def measured(self, codebook: str, drift: Drift, decision: Decision) -> None:
        """The codes in use were measured."""

    def codes_refreshed(self, how: str, result: str, seconds: float, changed: int) -> None:
        """A refresh or rollback ended; `result` is done, none, refused or failed."""


class Topics(NamedTuple):
    """The broker's names."""

    codebooks: str
    item_codes: str


class CodebookPublisher:
    """Publishes with retries.

    Raises (every method):
        PublishError: all tries failed. LeadershipLostError: between two tries.
    """

    def __init__(self, ports: Ports, topics: Topics, registry: CodebookRegistry, pace: Pace, clock_ms: Callable[[], int]) -> None:
        self._ports, self._topics, self._registry, self._pace, self._clock_ms = ports, topics, registry, pace, clock_ms

    def publish(self, *records: Record) -> None:
        """Publish records to the topic of codebooks."""
        self.send([Outgoing(self._topics.codebooks, key_of(record), msgspec.json.encode(record)) for record in records])

    def activate(self, current: CurrentCodes) -> None:
        """Publish which codebook is in use, and wait until the registry has read it back: the next steps read it there."""
        self.publish(current)
        for _ in range(int(READ_BACK_S / LOOK_S)):
            if self._registry.currents.get(current.bundle) == current:
                return
            self._ports.wait(LOOK_S)
        log.warning("the activation of codebook %s was published but not read back within %.0f s", current.codebook, READ_BACK_S)

    def retract(self, codebooks: Sequence[str]) -> None:
        """Delete the records of codebooks."""
        self.send([Outgoing(self._topics.codebooks, key_of_codebook(name), None) for name in codebooks])

    def answer(self, request: CodesRequest | None, state: State, detail: str, codebook: str = "", done: int = 0, total: int = 0) -> None:
        """Answer a request, if there is one."""
        if request is not None:
            at_ms = self._clock_ms()
            self.publish(CodesAnswer(id=request.id, state=state, detail=detail, at_ms=at_ms, codebook=codebook, done=done, total=total))

    def send(self, records: Sequence[Outgoing]) -> None:
        """Publish records to any topic."""
        for wait_s in self._waits():
            self._ports.wait(0.0)
            try:
                self._ports.publish(records)
                return
            except PublishError as error:
                log.warning("codes were not published, will try again: %s", error)
                self._ports.wait(wait_s)
        self._ports.publish(records)

    def ends(self) -> dict[int, int]:
        """The present ends of `item-codes`, by partition."""
        for wait_s in self._waits():
            try:
                return dict(self._ports.ends())
            except PublishError:
                self._ports.wait(wait_s)
        return dict(self._ports.ends())

    def _waits(self) -> Iterator[float]:
        return (min(self._pace.longest_wait_s, 0.5 * 2**tries) for tries in range(self._pace.tries - 1))


def figures(drift: Drift) -> dict[str, float]:
    """The figures of a measurement that are shown; of the sub-spaces, the worst."""
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

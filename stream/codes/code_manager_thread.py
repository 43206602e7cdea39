"""The thread in which a worker keeps codes, for as long as it is the one to do so: a tail of `item-codes`, a ledger, a keeper."""

import logging
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Thread
from time import monotonic
from typing import NamedTuple, Protocol

from kafka.errors import KafkaError

from models.bundle import Bundle
from models.codes.drift import Decision, Drift, Policy, Reservoir
from stream.codes.catalogue_snapshot import Ledger
from stream.codes.code_manager import Keeper
from stream.codes.code_reader import code_tail
from stream.codes.codebook_publisher import Pace, Topics
from stream.codes.codebook_registry import Book
from stream.errors import LeadershipLostError, PublishError
from stream.kafka.connection import Connection
from stream.kafka.producer import Outgoing
from stream.kafka.topic_reader import ranges

log = logging.getLogger(__name__)

LOOK_S = 0.2
AGAIN_S = (1.0, 60.0)  # first and longest wait after a failure
CATCH_UP_S = 600.0


class Duty(NamedTuple):
    """What the thread asks of its worker: whether it is the keeper now, the bundle in use, a publication (blocking), the clock."""

    mine: Callable[[], bool]
    bundle: Callable[[], Bundle]
    publish: Callable[[Sequence[Outgoing]], None]
    clock_ms: Callable[[], int]


class CodesObserver(Protocol):
    """The events of the code manager."""

    def measured(self, codebook: str, drift: Drift, decision: Decision) -> None:
        """The codes in use were measured."""

    def codes_refreshed(self, how: str, result: str, seconds: float, changed: int) -> None:
        """A refresh or rollback ended; `result` is done, none, refused or failed."""

    def leadership_lost(self) -> None:
        """This worker manages no codes any more."""


class Plan(NamedTuple):
    """How codes are kept."""

    pace: Pace = Pace()
    policy: Policy = Policy()
    reservoir: int = 16_384
    automatic: bool = True


class Keeping:
    """Runs a keeper while it is this worker's turn. Whatever goes wrong is logged and begun again, later and later: codes in use stay."""

    def __init__(self, connection: Connection, topics: Topics, book: Book, duty: Duty, observer: CodesObserver, plan: Plan) -> None:
        self._connection, self._topics, self._book = connection, topics, book
        self._duty, self._observer, self._plan = duty, observer, plan
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="keeper of codes", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a training under way is not waited for."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=3)

    def _run(self) -> None:
        again_s = AGAIN_S[0]
        while not self._stopping.wait(LOOK_S):
            if not self._duty.mine():
                continue
            began = monotonic()
            try:
                self._keep(self._duty.bundle())
            except LeadershipLostError:
                log.info("another worker keeps the codes from now on, or this one stops")
            except Exception as error:  # a bug here must not end the catalogue
                if isinstance(error, PublishError | KafkaError | TimeoutError):
                    log.warning("codes cannot be kept now, will try again: %s", error)
                else:
                    log.exception("keeping codes failed, will try again")
                again_s = AGAIN_S[0] if monotonic() - began > AGAIN_S[1] else min(2 * again_s, AGAIN_S[1])
                self._stopping.wait(again_s)
            finally:
                self._observer.leadership_lost()

    def _keep(self, bundle: Bundle) -> None:
        log.info("this worker keeps the codes of bundle %s", bundle.generation)
        self._book.expect(bundle.generation, bundle.codebook)
        ledger = Ledger(bundle.generation, bundle.codebook, bundle.manifest.dim)
        table, plan = bundle.items, self._plan
        parts = table.vectors if table.parts is None else table.parts
        ledger.begin(table.ids, table.vectors, table.codes, table.parts)
        reservoir = Reservoir(plan.reservoir)
        reservoir.put(table.ids, parts)
        outside = _Outside(self._connection, self._topics, self._duty, self._observer, self._stopping, bundle)
        keeper = Keeper(
            ledger,
            bundle.codebook,
            self._book,
            outside,
            self._topics,
            self._duty.clock_ms,
            reservoir=reservoir,
            policy=plan.policy,
            pace=plan.pace,
            automatic=plan.automatic,
        )
        tail = code_tail(self._connection, self._topics.item_codes, keeper.hear)
        try:
            tail.start()
            tail.catch_up(self._stopping, CATCH_UP_S)
            while True:
                outside.wait(LOOK_S)
                if tail.failure is not None:
                    raise tail.failure
                keeper.tick(monotonic())
        finally:
            tail.stop()


class _Outside:
    """The world of a keeper of one bundle: see stream.codes.code_manager.Outside."""

    def __init__(
        self, connection: Connection, topics: Topics, duty: Duty, observer: CodesObserver, stopping: Event, bundle: Bundle
    ) -> None:
        self._connection, self._topics, self._duty, self._observer = connection, topics, duty, observer
        self._stopping, self._bundle = stopping, bundle
        self.publish = duty.publish
        self.measured, self.refreshed = observer.measured, observer.codes_refreshed

    def ends(self) -> Mapping[int, int]:
        try:
            return {at: end for at, (_, end) in ranges(self._connection, self._topics.item_codes).items()}
        except KafkaError as error:
            raise PublishError(f"{error!r} while asking for the ends of {self._topics.item_codes}") from error

    def wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds) or not self._duty.mine() or self._duty.bundle().generation != self._bundle.generation:
            raise LeadershipLostError

"""The thread in which the leader among the catalogue workers manages codes."""

import logging
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Thread
from time import monotonic
from typing import NamedTuple, Protocol

from kafka.errors import KafkaError

from models.bundle import Bundle
from models.codes.drift import Decision, Drift, Policy
from models.codes.reservoir import Reservoir
from stream.codes.catalogue_snapshot import CatalogueSnapshot
from stream.codes.code_manager import CodeManager
from stream.codes.codebook_publisher import Pace, Topics
from stream.codes.codebook_registry import CodebookRegistry
from stream.codes.readers import code_reader
from stream.errors import LeadershipLostError, PublishError
from stream.kafka.connection import Connection
from stream.kafka.producer import Outgoing
from stream.kafka.topic_reader import ranges

log = logging.getLogger(__name__)

LOOK_S = 0.2
RETRY_S = (1.0, 60.0)  # first and longest wait after a failure
CATCH_UP_S = 600.0


class Host(NamedTuple):
    """What the thread needs of its worker: whether it is the leader now, the bundle in use, a blocking publication, the clock (ms)."""

    is_leader: Callable[[], bool]
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


class ManagerOptions(NamedTuple):
    """How codes are managed. Drift is measured on a sample of `reservoir` items; `automatic`: refresh when the policy calls for it."""

    pace: Pace = Pace()
    policy: Policy = Policy()
    reservoir: int = 16_384
    automatic: bool = True


class CodeManagerThread:
    """Runs a code manager while this worker is the leader. A failure is logged and retried, later and later: the codes in use stay."""

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        registry: CodebookRegistry,
        host: Host,
        observer: CodesObserver,
        options: ManagerOptions,
    ) -> None:
        self._connection, self._topics, self._registry = connection, topics, registry
        self._host, self._observer, self._options = host, observer, options
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="code manager", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, without waiting for a training in progress."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=3)

    def _run(self) -> None:
        retry_s = RETRY_S[0]
        while not self._stopping.wait(LOOK_S):
            if not self._host.is_leader():
                continue
            began = monotonic()
            try:
                self._manage(self._host.bundle())
            except LeadershipLostError:
                log.info("this worker no longer manages codes: it stops, another one does, or the bundle changed")
            except Exception as error:  # a bug here must not end the catalogue
                if isinstance(error, PublishError | KafkaError | TimeoutError):
                    log.warning("codes cannot be managed now, will try again: %s", error)
                else:
                    log.exception("managing codes failed, will try again")
                retry_s = RETRY_S[0] if monotonic() - began > RETRY_S[1] else min(2 * retry_s, RETRY_S[1])
                self._stopping.wait(retry_s)
            finally:
                self._observer.leadership_lost()

    def _manage(self, bundle: Bundle) -> None:
        """Manage the codes of a bundle until an error, or the leadership or the bundle changes."""
        log.info("this worker manages the codes of bundle %s", bundle.generation)
        self._registry.expect(bundle.generation, bundle.codebook)
        catalogue = CatalogueSnapshot(bundle.generation, bundle.codebook, bundle.manifest.dim)
        table, options = bundle.items, self._options
        catalogue.load_table(table.ids, table.vectors, table.codes, table.parts)
        reservoir = Reservoir(options.reservoir)
        reservoir.put(table.ids, table.vectors if table.parts is None else table.parts)
        ports = _KafkaPorts(self._connection, self._topics, self._host, self._observer, self._stopping, bundle)
        manager = CodeManager(
            catalogue,
            bundle.codebook,
            self._registry,
            ports,
            self._topics,
            self._host.clock_ms,
            reservoir=reservoir,
            policy=options.policy,
            pace=options.pace,
            automatic=options.automatic,
        )
        reader = code_reader(self._connection, self._topics.item_codes, manager.apply)
        try:
            reader.start()
            reader.catch_up(self._stopping, CATCH_UP_S)
            while True:
                ports.wait(LOOK_S)
                if reader.failure is not None:
                    raise reader.failure
                manager.tick(monotonic())
        finally:
            reader.stop()


class _KafkaPorts:
    """The ports (stream.codes.codebook_publisher.Ports) of the manager of one bundle."""

    def __init__(
        self, connection: Connection, topics: Topics, host: Host, observer: CodesObserver, stopping: Event, bundle: Bundle
    ) -> None:
        self._connection, self._topics, self._host, self._observer = connection, topics, host, observer
        self._stopping, self._bundle = stopping, bundle
        self.publish = host.publish
        self.measured, self.codes_refreshed = observer.measured, observer.codes_refreshed

    def ends(self) -> Mapping[int, int]:
        try:
            return {at: end for at, (_, end) in ranges(self._connection, self._topics.item_codes).items()}
        except KafkaError as error:
            raise PublishError(f"{error!r} while reading the ends of {self._topics.item_codes}") from error

    def wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds) or not self._host.is_leader() or self._host.bundle().generation != self._bundle.generation:
            raise LeadershipLostError

"""The Faust app of our workers, and running it in this process until a signal."""

import asyncio
import logging
import os
import signal
import threading
from typing import Any

import faust
from faust.assignor.partition_assignor import PartitionAssignor
from mode import CrashingSupervisor

from stream.kafka.connection import Connection
from stream.kafka.progress import Progress
from stream.kafka.timestamp_merge import LIMITS, MergeLimits
from stream.kafka.transport import Transport
from stream.kafka.watchdog import watch

__all__ = ["App", "Connection", "make_app", "run"]

log = logging.getLogger(__name__)


class Assignor(PartitionAssignor):
    """Co-partitioned and balanced. With standbys Faust fills workers to ceil(partitions / workers): the last may get none."""

    def __init__(self, app: Any, replicas: int = 0) -> None:
        super().__init__(app, replicas=0)


SETTINGS: dict[str, Any] = {
    "PartitionAssignor": Assignor,
    "table_standby_replicas": 1,  # 0 makes Faust use aiokafka's round robin, which breaks co-partitioning
    "agent_supervisor": CrashingSupervisor,  # the default restarts the agent and skips the failed batch until the next rebalance
    "stream_buffer_maxsize": 16,  # counts lists, no longer records
    "stream_wait_empty": True,  # finish and commit the batch in flight before partitions are revoked
    "stream_publish_on_commit": False,
    "topic_allow_declare": False,  # stream.kafka.admin creates the topics; a worker needs no right to
    "topic_disable_leader": True,  # no <app>-__assignor-__leader topic
    "broker_session_timeout": 10.0,  # default 60: how long the partitions of a killed worker wait
    "broker_heartbeat_interval": 1.0,  # default 3: how long those of a stopping worker wait
    "broker_commit_interval": 2.8,  # bounds what a kill repeats
    "consumer_max_fetch_size": 1 << 20,  # bytes of one partition in one fetch
    "web_enabled": False,
    "worker_redirect_stdouts": False,
    "autodiscover": False,
}


class App(faust.App):
    """A Faust app without tables, web server or files, that reads batches (stream.kafka.transport)."""

    progress: Progress

    def _create_directories(self) -> None:
        """Create none: without tables there is nothing to keep."""


def make_app(
    role: str,
    connection: Connection,
    *,
    group: str,
    stall_after_s: float = 60.0,
    check_every_s: float = 5.0,
    limits: MergeLimits = LIMITS,
    **settings: Any,
) -> App:
    """An app that reads as the consumer group `group`; `role` names it in the broker's logs.

    `stream.workers.agents.batch_agent` adds agents. A partition without progress for `stall_after_s`, checked every `check_every_s`,
    crashes the app. `limits` size the lists; `settings` replace those of Faust above.
    """
    arguments = {
        "broker": connection.faust_broker(),
        "broker_credentials": connection.faust_credentials(),
        "broker_client_id": f"everlong-{role}",
        **SETTINGS,
        **settings,
    }
    app = App(group, **arguments)
    app.progress = Progress(stall_after_s)
    app.transport = Transport(app, app.progress, limits)

    async def watchdog() -> None:
        await watch(app, app.progress, connection, check_every_s)

    app.task(watchdog)
    return app


def run(app: faust.App, stop_deadline_s: float) -> int:
    """Run a worker in this process, in the main thread, until SIGTERM or SIGINT; the exit code is for `sys.exit`.

    0: stopped by a signal, with the batch in flight finished and committed. 1: crashed; unacknowledged batches are delivered again. If
    stopping takes longer than `stop_deadline_s` (no brokers, a handler that hangs), a timer thread ends the process with 1.
    """
    worker = _Worker(app, stop_deadline_s=stop_deadline_s, loop=asyncio.new_event_loop())
    asyncio.set_event_loop(worker.loop)
    try:
        worker.execute_from_commandline()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    finally:
        worker.disarm()


class _Worker(faust.Worker):
    """A Faust worker that leaves logging, standard output and the process title alone, and stops in bounded time."""

    def __init__(self, app: faust.App, *, stop_deadline_s: float, **kwargs: Any) -> None:
        super().__init__(app, quiet=True, override_logging=False, redirect_stdouts=False, **kwargs)
        self.spinner = None
        self._stop_deadline_s = stop_deadline_s
        self._timer: threading.Timer | None = None

    def _setproctitle(self, info: str, *, ident: str = "") -> None:
        """Keep it: operators look for the command that they started."""

    def _on_sigint(self) -> None:
        self._arm()
        self._flag_as_shutdown_by_signal()
        self._schedule_shutdown(signal.SIGINT)

    def _on_sigterm(self) -> None:
        self._arm()
        super()._on_sigterm()

    def _crash(self, reason: BaseException) -> None:
        self._arm()
        super()._crash(reason)

    def on_worker_shutdown(self) -> None:
        """Called when the app ended for any reason: closing it must end too."""
        self._arm()

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(self._stop_deadline_s, _end_process, (self._stop_deadline_s,))
            self._timer.daemon = True
            self._timer.start()

    def disarm(self) -> None:
        """The worker ended in time."""
        if self._timer is not None:
            self._timer.cancel()


def _end_process(after_s: float) -> None:
    log.critical("could not stop within %.0f s (are the brokers gone?), ending the process; what is not committed comes again", after_s)
    logging.shutdown()
    os._exit(1)

"""The whole system on one machine, as child processes: embedded broker and store unless others are configured, topics, Feast, workers."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import prometheus_client  # noqa: F401 - before Feast, whose import would switch it to metrics shared between processes
from kafka.errors import KafkaError
from pydantic import SecretStr

from features.feast import definitions
from infra.errors import NotReadyError
from infra.local import embedded, running, trimming
from infra.local.private import private_files
from infra.local.processes import Supervisor, everlong, stop_on_signals, tail
from infra.scraping import ready
from infra.settings import Settings, child_environment
from infra.wiring import connection
from stream.kafka.admin import create_topics, remove_members
from stream.kafka.bounded_log import BOUNDS, BoundedLog, Bounds

log = logging.getLogger(__name__)

WORKERS = ("catalogue", "ingest", "refresh")
REGISTRY = "registry.db"
READY_S = 90.0
POLL_S = 0.1


@contextmanager
def children(settings: Settings) -> Iterator[Supervisor]:
    """A supervisor for the owner of the data directory. Its children stop in order however the command ends, so the broker's log stays
    complete.

    Files created within the context are readable by this user only.

    Raises:
        AlreadyRunningError: another command owns the data directory.
    """
    supervisor = Supervisor(settings.data_dir / "logs", settings.stop_deadline_s)
    with stop_on_signals(), private_files(), running.owned(settings.data_dir), supervisor:
        try:
            yield supervisor
        finally:  # workers together, then the broker, then the store
            supervisor.stop(*(name for name in supervisor.children if name not in (embedded.BROKER, embedded.STORE)))
            embedded.close_broker(supervisor, settings.data_dir)


def start_parts(supervisor: Supervisor, settings: Settings, persist: bool) -> tuple[Settings, bool]:
    """Start the embedded broker and store unless others are configured.

    Returns the settings with their addresses, and whether the broker's log is empty, so that everything must be sent again.
    """
    found: dict[str, object] = {}
    fresh = False
    if settings.kafka_bootstrap is None:
        broker = embedded.start_broker(supervisor, settings.data_dir)
        found |= {"kafka_bootstrap": broker.bootstrap, "epoch": broker.epoch}
        fresh = broker.fresh
    if settings.store_url is None:
        found["store_url"] = SecretStr(embedded.start_store(supervisor, settings.data_dir, persist))
    return settings.model_copy(update=found), fresh


def make_topics(settings: Settings) -> list[str]:
    """Create missing topics; returns their names."""
    return create_topics(connection(settings), settings.topic_prefix, settings.partitions, settings.replication)


def keep_small(supervisor: Supervisor, settings: Settings, bounds: Bounds = BOUNDS) -> trimming.Trimmer | None:
    """Limit the log of the embedded broker, after its topics were created, until it stops; None for another broker."""
    broker = supervisor.children.get(embedded.BROKER)
    if broker is None:
        return None
    trimmer = trimming.Trimmer(_bounded_log(settings, bounds))
    trimmer.start()
    broker.companion = trimmer
    return trimmer


def room(settings: Settings, own_broker: bool) -> trimming.Room | None:
    """A throttle for producers faster than the workers; None unless the broker is the embedded one (`own_broker`)."""
    return trimming.Room(_bounded_log(settings, BOUNDS)) if own_broker else None


def _bounded_log(settings: Settings, bounds: Bounds) -> Callable[[], BoundedLog]:
    return lambda: BoundedLog(connection(settings), settings.topic_prefix, settings.group, bounds)


def apply_features(settings: Settings) -> tuple[Path, list[str]]:
    """Write the feature definitions to Feast's registry; returns its path and the names of the views."""
    assert settings.store_url is not None
    registry = settings.data_dir / REGISTRY
    client = definitions.apply(settings.store_url.get_secret_value(), registry)
    views = [view.name for view in (*client.list_feature_views(), *client.list_on_demand_feature_views())]
    return registry, sorted(views)


def start_role(supervisor: Supervisor, role: str, settings: Settings, restart: bool, port: int | None = None) -> int:
    """Start one worker, or the API (role `api`, on `port`); returns its port of health and metrics."""
    port = port or embedded.free_port()
    assert settings.kafka_bootstrap is not None
    assert settings.store_url is not None
    environment = child_environment(
        kafka_bootstrap=settings.kafka_bootstrap,
        store_url=settings.store_url.get_secret_value(),
        kafka_security_protocol=settings.kafka_security_protocol,
        topic_prefix=settings.topic_prefix,
        epoch=settings.epoch,
        data_dir=settings.data_dir.resolve(),
        bundle=settings.bundle_path.resolve(),
        torch_threads=settings.torch_threads,
        **({"http_port": port} if role == "api" else {"metrics_port": port, "http_host": embedded.HOST}),
    )
    command = everlong("api") if role == "api" else everlong("worker", role)
    child = supervisor.start(role, command, environment, restart)
    if role in WORKERS and embedded.BROKER in supervisor.children:
        child.before_restart = partial(_leave_group, settings, role)
    return port


def _leave_group(settings: Settings, role: str) -> None:
    """Remove a role's ended worker from its group; the embedded broker would keep its partitions assigned to it."""
    try:
        remove_members(connection(settings), f"{settings.topic_prefix}{settings.group}-{role}")
    except KafkaError as error:
        log.warning("the group of %s still has its killed member: %r", role, error)


def start_workers(supervisor: Supervisor, settings: Settings, restart: bool) -> dict[str, int]:
    """Start the three workers; returns the port of health and metrics of each."""
    return {role: start_role(supervisor, role, settings, restart) for role in WORKERS}


def wait_ready(supervisor: Supervisor, ports: Mapping[str, int], tick: Callable[[str], None] = lambda role: None) -> None:
    """Wait until all are ready; `tick` is called with each one that is.

    Raises:
        ChildFailedError: one ended.
        NotReadyError: one was not ready in time.
    """
    end = time.monotonic() + READY_S
    for role, port in ports.items():
        while (reason := ready(port)) is not None:
            supervisor.check()
            if time.monotonic() > end:
                log = supervisor.children[role].log
                raise NotReadyError(f"{role} is not ready after {READY_S:.0f} s: {reason}; the end of {log}:\n{tail(log)}")
            time.sleep(POLL_S)
        tick(role)


async def wait_until(
    holds: Callable[[], bool], supervisor: Supervisor, seconds: float, what: str, *, strict: bool = True, poll_s: float = 0.25
) -> None:
    """Wait until a condition holds; it is checked in a thread while the children are watched.

    Raises:
        NotReadyError: it did not hold in time, and `strict` is set; `what` describes the condition.
        ChildFailedError: a child ended.
    """
    end = time.monotonic() + seconds
    while not await asyncio.to_thread(holds):
        supervisor.check()
        if time.monotonic() > end:
            if strict:
                raise NotReadyError(f"after {seconds:.0f} s still waiting for {what}; the logs are in {supervisor.log_dir}")
            return
        await asyncio.sleep(poll_s)

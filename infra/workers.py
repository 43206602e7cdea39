"""Constructs each role's worker from settings, with its metrics, readiness and connections, and runs it."""

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from infra.clock import wall_ms
from infra.monitors import CatalogueMonitor, IngestMonitor, RefreshMonitor, WorkerMonitor
from infra.probes import serve_metrics
from infra.settings import Settings
from infra.wiring import choose_device, connection, open_online_store
from stream.kafka.admin import create_topics, wait_for_broker
from stream.kafka.grants import GRANTS
from stream.kafka.topics import CLICKS, ITEMS
from stream.workers.context import WorkerContext, WorkerOptions

log = logging.getLogger(__name__)

START_S = 120.0  # how long a worker waits for the broker, and then for the store


def run_worker(role: str, settings: Settings) -> int:
    """Run a worker in this process until a signal; the exit code. Only the role's libraries are imported."""
    signal.signal(signal.SIGTERM, _exit)  # until the app runs: nothing else would end process 1 of a container
    return ROLES[role](settings)


@contextmanager
def context_of(monitor: WorkerMonitor, settings: Settings) -> Iterator[WorkerContext]:
    """The context of a worker: serves its metrics and readiness, waits for broker and store, and creates missing topics."""
    role = monitor.metrics.role
    server = serve_metrics(monitor.metrics, monitor.health, settings.http_host, settings.metrics_port)
    log.info("metrics and health of %s at http://%s:%d", role, server.host, server.port)
    try:
        broker = connection(settings)
        wait_for_broker(broker, START_S)
        create_topics(broker, settings.topic_prefix, settings.partitions, settings.replication, GRANTS[role].topics)
        monitor.health.set_ready("broker")
        store = open_online_store(settings, START_S)
        monitor.health.set_ready("store")
        try:
            yield WorkerContext(role, broker, store, monitor, _options(role, settings))
        finally:
            store.close()
    finally:
        server.close()


def _options(role: str, settings: Settings) -> WorkerOptions:
    return WorkerOptions(
        group=f"{settings.topic_prefix}{settings.group}-{role}",
        topic_prefix=settings.topic_prefix,
        session_timeout_s=settings.session_timeout_s,
        heartbeat_s=settings.heartbeat_s,
        commit_interval_s=settings.commit_interval_s,
        stall_after_s=settings.stall_after_s,
        retry_max_s=settings.retry_max_s,
        stop_deadline_s=settings.stop_deadline_s,
    )


def _ingest(settings: Settings) -> int:
    from time import monotonic

    from stream.pipelines.ingest import Ingest
    from stream.workers.ingest import IngestWorker
    from stream.workers.past import KafkaPast

    monitor = IngestMonitor()
    with context_of(monitor, settings) as context:
        pipeline = Ingest(
            context.store,
            wall_ms,
            settings.time_rules,
            settings.epoch,
            settings.cached_events,
            context.partitions(CLICKS),  # as many as the others have: create_topics refuses what differs
            context.era,
            KafkaPast(context.connection, settings.topic_prefix, lambda: context.app.progress.alive(monotonic())),
            settings.rows_from_epoch,
        )
        return IngestWorker(pipeline, context.publish, monitor, settings.topic_prefix, wall_ms).run(context)


def _catalogue(settings: Settings) -> int:
    from models.codes.drift import Policy
    from stream.codes.code_manager_thread import ManagerOptions
    from stream.codes.codebook_publisher import Pace
    from stream.workers.catalogue import CatalogueOptions, CatalogueWorker

    monitor = CatalogueMonitor()
    with context_of(monitor, settings) as context:
        manager = ManagerOptions(
            pace=Pace(measure_s=settings.codes_measure_s, rest_s=settings.codes_rest_s),
            policy=Policy(gain=settings.codes_gain, lost=settings.codes_lost),
            reservoir=settings.codes_reservoir,
            automatic=settings.codes_automatic,
        )
        options = CatalogueOptions(
            bundle=settings.bundle_path,
            bundle_poll_s=settings.bundle_poll_s,
            device=choose_device(settings),
            rules=settings.time_rules,
            epoch=settings.epoch,
            partitions=context.partitions(ITEMS),
            manager=manager,
        )
        return CatalogueWorker(context, monitor, options, wall_ms).run()


def _refresh(settings: Settings) -> int:
    from models.serving.retriever import Options
    from stream.workers.live_serving import ServedBundle, ServingOptions
    from stream.workers.refresh import RefreshOptions, RefreshWorker

    monitor = RefreshMonitor()
    with context_of(monitor, settings) as context:
        retrieval = Options(
            top_k=settings.top_k_categories,
            candidates=settings.candidates,
            exclude_bought=settings.exclude_bought,
            only_available=settings.only_available,
            shares=settings.shares,
            demand=settings.demand,
        )
        serving = ServingOptions(
            bundle=settings.bundle_path,
            bundle_poll_s=settings.bundle_poll_s,
            device=choose_device(settings),
            data_dir=settings.data_dir,
            epoch=settings.epoch,
            snapshot_s=settings.snapshot_s,
            retrieval=retrieval,
        )
        served = ServedBundle(context, monitor, serving, wall_ms)
        options = RefreshOptions(topic_prefix=settings.topic_prefix, batch=settings.refresh_batch, lag_budget=settings.refresh_lag_budget)
        worker = RefreshWorker(served.refresh, context.publish, context.app.progress, monitor, options)
        with served:
            return worker.run(context)


def _exit(*_: object) -> None:
    sys.exit(0)


ROLES: dict[str, Callable[[Settings], int]] = {"catalogue": _catalogue, "ingest": _ingest, "refresh": _refresh}

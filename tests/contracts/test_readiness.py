"""Readiness says which part is away, the store or the broker, and clears once that part answers."""

import asyncio
import os
import signal
import time
from types import SimpleNamespace

import pytest

from features.errors import StoreUnavailableError
from features.store.memory import MemoryStore
from infra.health import Health
from infra.http import server
from infra.local import embedded
from infra.local.processes import Supervisor
from infra.metrics import IngestMetrics
from infra.settings import Settings
from stream.errors import PublishError
from stream.kafka.connection import Connection
from stream.kafka.producer import Outbound
from stream.kafka.progress import Progress
from stream.pipelines.steps import untimed
from stream.workers import context as frames


@pytest.fixture
def broker(tmp_path):
    with Supervisor(tmp_path / "logs", 5) as supervisor:
        started = embedded.start_broker(supervisor, tmp_path)
        yield SimpleNamespace(connection=Connection(bootstrap=started.bootstrap), pid=supervisor.pids()[0])


def test_a_broker_that_is_silent_or_gone_is_noticed_without_publishing(broker):
    async def main():
        outbound = Outbound(broker.connection, give_up_after_s=2)
        await outbound.ask()
        os.kill(broker.pid, signal.SIGSTOP)
        with pytest.raises(PublishError, match=r"no answer in 0\.5 s"):
            await outbound.ask(within_s=0.5)
        os.kill(broker.pid, signal.SIGCONT)
        await outbound.ask()
        os.kill(broker.pid, signal.SIGKILL)
        with pytest.raises(PublishError, match="EVERLONG_KAFKA_BOOTSTRAP"):
            await outbound.ask()
        await outbound.stop()

    asyncio.run(main())


def test_the_api_is_unready_while_its_broker_is_away(broker, monkeypatch):
    monkeypatch.setattr(server, "CHECK_S", 0.02)

    async def main():
        outbound, health = Outbound(broker.connection, give_up_after_s=2), Health("store", "broker")
        checking = asyncio.create_task(server._check(MemoryStore(), outbound, health))
        await until(lambda: health.ready)
        os.kill(broker.pid, signal.SIGSTOP)
        await until(lambda: health.reasons().keys() == {"broker"})
        os.kill(broker.pid, signal.SIGCONT)
        await until(lambda: health.ready)
        checking.cancel()
        await outbound.stop()

    asyncio.run(main())


async def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


class Worker(frames.Frame):
    """A frame without parts: what it does with the outcome of a handle."""

    def __init__(self, handle, monkeypatch):
        self.role, self.settings = "ingest", Settings()
        self.metrics, self.health, self.app = IngestMetrics(), Health(), None
        told = {}
        monkeypatch.setattr(frames, "batch_agent", lambda app, topics, handle, **rest: told.update(handle=handle, **rest))
        self.read([], handle, in_step=False)
        self.handle, self.on_retry = told["handle"], told["on_retry"]


@pytest.mark.fault("An outage of the store or the broker", "Readiness and `everlong_retries_total` report the failed step and the error")
@pytest.mark.parametrize(
    ("error", "part", "step"), [(StoreUnavailableError("a test"), "store", "write"), (PublishError("a test"), "broker", "publish")]
)
def test_a_worker_names_the_part_and_the_step_that_failed_until_a_batch_is_done(monkeypatch, error, part, step):
    failing = True

    async def handle(records, steps):
        with steps("merge"), steps(step):
            if failing:
                raise error

    worker = Worker(handle, monkeypatch)
    with pytest.raises(type(error)):
        asyncio.run(worker.handle([]))
    worker.on_retry(error, 1)
    assert worker.health.reasons() == {part: f"{step}: the {part} does not answer; the log of this process says more"}
    labels = {"role": "ingest", "step": step, "error": type(error).__name__}
    assert worker.metrics.registry.get_sample_value("everlong_retries_total", labels) == 1
    assert worker.metrics.registry.get_sample_value("everlong_batch_seconds_count", {"role": "ingest"}) is None

    failing = False
    asyncio.run(worker.handle([]))
    assert worker.health.ready
    assert worker.metrics.registry.get_sample_value("everlong_step_seconds_count", {"role": "ingest", "step": step}) == 1
    worker.on_retry(error, 1)
    asyncio.run(worker._on_assigned())
    assert worker.health.ready


@pytest.mark.fault(
    "A partition that makes no progress for a while and then recovers", "Readiness reports the partition until it makes progress again"
)
def test_a_worker_is_ready_again_once_its_partitions_move(monkeypatch):
    worker = Worker(None, monkeypatch)
    progress = Progress(stall_after_s=0.0)
    worker.app = SimpleNamespace(progress=progress)
    progress.assigned([("clicks", 0)], now=0.0)
    progress.observed(("clicks", 0), end=9, fetched=0, committed=0, now=0.0)
    asyncio.run(worker._show(untimed))
    assert worker.health.reasons() == {"progress": "no progress on clicks/0"}
    assert worker.metrics.registry.get_sample_value("everlong_lag_records", {"topic": "clicks", "partition": "0"}) == 9
    progress.observed(("clicks", 0), end=9, fetched=9, committed=0, now=1.0)
    asyncio.run(worker._show(untimed))
    assert worker.health.ready

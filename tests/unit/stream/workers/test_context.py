"""What a worker's context does with batches and jobs: what it reports, and that no job delays another."""

import asyncio
from types import SimpleNamespace

import pytest

from features.errors import StoreUnavailableError
from features.store.memory import MemoryStore
from infra.monitors import IngestMonitor
from stream.errors import PublishError
from stream.kafka.connection import Connection
from stream.kafka.topics import CLICKS
from stream.pipelines.batch import untimed
from stream.workers import context as contexts
from stream.workers.agents import Batch
from stream.workers.context import WorkerContext, WorkerOptions

NOBODY = Connection(bootstrap="127.0.0.1:1")


@pytest.fixture
def monitor():
    found = IngestMonitor()
    for condition in ("broker", "store", "partitions"):
        found.health.set_ready(condition)
    return found


@pytest.fixture
def context(monitor):
    return WorkerContext("ingest", NOBODY, MemoryStore(), monitor, WorkerOptions(group="g", stall_after_s=0.0))


def test_making_a_context_connects_to_nothing(context):
    assert context.topic(CLICKS) == "clicks"
    assert not context.stopping.is_set()


@pytest.mark.fault("An outage of the store or the broker", "Readiness and `everlong_retries_total` report the failed step and the error")
@pytest.mark.parametrize(
    ("error", "part", "step"), [(StoreUnavailableError("a test"), "store", "write"), (PublishError("a test"), "broker", "publish")]
)
def test_a_worker_names_the_part_and_the_step_that_failed_until_a_batch_is_done(context, monitor, monkeypatch, error, part, step):
    failing, agent = True, {}
    monkeypatch.setattr(contexts, "batch_agent", lambda app, topics, handle, **rest: agent.update(handle=handle, **rest))

    async def process(batch, steps):
        with steps("merge"), steps(step):
            if failing:
                raise error

    context.consume([CLICKS], process, in_step=False)
    with pytest.raises(type(error)):
        asyncio.run(agent["handle"](Batch([])))
    agent["on_retry"](error, 1)
    assert monitor.health.reasons() == {part: f"{step}: the {part} does not answer; see the log of this process"}
    labels, value = {"role": "ingest", "step": step}, monitor.metrics.registry.get_sample_value
    assert value("everlong_retries_total", labels | {"error": type(error).__name__}) == 1
    assert value("everlong_batch_seconds_count", {"role": "ingest"}) is None

    failing = False
    asyncio.run(agent["handle"](Batch([])))
    assert monitor.health.ready
    assert value("everlong_step_seconds_count", labels) == 1
    agent["on_retry"](error, 1)
    asyncio.run(context._on_assigned())
    assert monitor.health.ready


@pytest.mark.fault(
    "A partition that makes no progress for a while and then recovers", "Readiness reports the partition until it makes progress again"
)
def test_a_worker_is_ready_again_once_its_partitions_move(context, monitor):
    progress = context.app.progress
    progress.assigned([("clicks", 0)], now=0.0)
    progress.observed(("clicks", 0), end=9, fetched=0, committed=0, now=0.0)
    asyncio.run(context._report_progress(untimed))
    assert monitor.health.reasons() == {"progress": "no progress on clicks/0"}
    assert monitor.metrics.registry.get_sample_value("everlong_lag_records", {"topic": "clicks", "partition": "0"}) == 9
    progress.observed(("clicks", 0), end=9, fetched=9, committed=0, now=1.0)
    asyncio.run(context._report_progress(untimed))
    assert monitor.health.ready


class App(SimpleNamespace):
    """Runs what is registered as a Faust app does: each task as an asyncio task of its own."""

    def __init__(self):
        super().__init__(should_stop=False, tasks=[], crashes=[])

    def task(self, task):
        self.tasks.append(task)

    async def sleep(self, seconds):
        await asyncio.sleep(0)

    async def crash(self, error):
        self.crashes.append(error)

    async def run(self, until):
        running = [asyncio.create_task(task()) for task in self.tasks]
        async with asyncio.timeout(60):
            await until
        self.should_stop = True
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@pytest.fixture
def app(context):
    context.app = App()
    return context.app


def test_a_job_that_takes_for_ever_delays_no_other(context, app):
    async def main():
        ticks = asyncio.Semaphore(0)

        async def stuck(steps):
            await asyncio.Event().wait()

        async def quick(steps):
            ticks.release()

        context._repeat(stuck)
        context._repeat(quick)
        await app.run(until=asyncio.gather(*(ticks.acquire() for _ in range(3))))

    asyncio.run(main())


def test_a_job_goes_on_after_an_outage_and_a_bug_in_one_crashes_the_worker(context, app, monitor):
    async def main():
        tries, crashed = [PublishError("a test"), None, ValueError("a bug")], asyncio.Event()

        async def job(steps):
            with steps("publish"):
                if error := tries.pop(0):
                    raise error

        async def crash(error):
            app.crashes.append(error)
            crashed.set()

        app.crash = crash
        context._repeat(job)
        await app.run(until=crashed.wait())
        assert tries == []

    asyncio.run(main())
    assert [str(error) for error in app.crashes] == ["a bug"]
    labels = {"role": "ingest", "step": "publish", "error": "PublishError"}
    assert monitor.metrics.registry.get_sample_value("everlong_retries_total", labels) == 1

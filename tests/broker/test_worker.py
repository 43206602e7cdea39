"""Workers as processes on a real Kafka: how they end, and what is delivered again."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stream.errors import PublishError
from stream.kafka.producer import Outbound
from tests.broker.reader import committed, create, publish

SCRIPT = Path(__file__).with_name("batch_worker.py")

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


class Worker:
    """A worker process and its notes."""

    def __init__(self, connection, group, topic, log, behaviour, *more):
        self.log = log
        self.topic = topic
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), connection.bootstrap, group, topic, str(log), behaviour, *map(str, more)],
            stderr=subprocess.PIPE,
            text=True,
        )

    def notes(self, what):
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [tuple(map(int, line.split()[1:])) for line in lines if line.startswith(what)]

    def until(self, condition, timeout_s=60):
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline
            assert self.process.poll() is None, self.process.stderr.read()
            time.sleep(0.02)

    def end(self, sig=None, timeout_s=60):
        """(exit code, standard error)."""
        if sig is not None:
            self.process.send_signal(sig)
        _, errors = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, errors


@pytest.fixture
def start(kafka, prefix, group, tmp_path):
    """Start a worker on a topic of one partition with 100 records; killed at the end if it did not end."""
    workers = []
    topic = prefix + "work"

    def begin(behaviour, *more, connection=kafka, log="log"):
        if not workers:
            create(connection, [topic], partitions=1)
            asyncio.run(publish(connection, [(topic, key, None) for key in range(100)]))
        workers.append(Worker(connection, group, topic, tmp_path / log, behaviour, *more))
        return workers[-1]

    yield begin
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.kill()
        worker.process.communicate()


def test_sigterm_finishes_the_list_in_hand_and_commits(kafka, group, start):
    worker = start("slow")
    worker.until(lambda: worker.notes("given"))
    assert not worker.notes("done")
    code, errors = worker.end(signal.SIGTERM)
    assert code == 0, errors  # 1 where it took too long
    assert worker.notes("done") == [(0, 0, 99)]
    assert committed(kafka, group) == {(worker.topic, 0): 100}


def test_sigint_ends_it_too_and_an_outage_does_not_hold_it_up(kafka, group, start):
    worker = start("long-outage")
    worker.until(lambda: len(worker.notes("given")) > 3)
    code, errors = worker.end(signal.SIGINT)
    assert code == 0, errors
    assert committed(kafka, group) == {}


@pytest.mark.parametrize("behaviour", ["bug", "outage"])
def test_a_crash_keeps_the_list_for_the_next_start(kafka, group, start, behaviour):
    worker = start(behaviour)
    code, errors = worker.end()
    assert code == 1, errors
    assert committed(kafka, group) == {}
    again = start("ok", log="again")
    again.until(lambda: again.notes("done") == [(0, 0, 99)])
    assert again.end(signal.SIGTERM)[0] == 0
    assert committed(kafka, group) == {(worker.topic, 0): 100}


def test_the_watchdog_ends_a_worker_that_hangs(kafka, group, start):
    worker = start("hang", 2)
    code, errors = worker.end()
    assert code == 1
    assert "no progress on" in errors
    assert committed(kafka, group) == {}


async def publish_through_the_end(own_kafka):
    outbound = Outbound(own_kafka.connection, give_up_after_s=1.0)
    await outbound.publish([("some", b"k", b"v", None, None)])
    own_kafka.kill()
    for _ in range(2):
        with pytest.raises(PublishError):
            await outbound.publish([("some", b"k", b"v", None, None)] * 10)
    await outbound.stop()


@pytest.mark.fault("An outage of all Kafka brokers", "The log reports it in a few lines, and SIGTERM still stops the worker in time")
def test_sigterm_with_all_brokers_gone_ends_within_the_deadline_and_the_log_stays_short(own_kafka, start):
    worker = start("ok", connection=own_kafka.connection)
    worker.until(lambda: worker.notes("done"))
    asyncio.run(publish_through_the_end(own_kafka))
    code, errors = worker.end(signal.SIGTERM)
    assert code in (0, 1), errors
    assert len(errors.splitlines()) < 200, errors

"""Readiness says which part is away, the store or the broker, and clears once that part answers."""

import asyncio
import os
import signal
import time
from types import SimpleNamespace

import pytest

from features.store.memory import MemoryStore
from infra.health import Health
from infra.http import server
from infra.local import embedded
from infra.local.processes import Supervisor
from stream.errors import PublishError
from stream.kafka.connection import Connection
from stream.kafka.producer import Outbound


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

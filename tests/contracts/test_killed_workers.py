"""Workers of `everlong up` that are killed: each is started again and goes on, also on the embedded broker, which expires no member."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from features.events import Click
from features.store import Key
from features.table import USER
from infra.clock import wall_ms
from infra.local import system
from infra.local.feed import Feed
from infra.local.processes import Supervisor
from infra.scraping import ready
from infra.settings import Settings, load_settings
from infra.wiring import connection, open_online_store


def wait_until(condition: Callable[[], bool], supervisor: Supervisor, seconds: float = 100.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        supervisor.check()
        time.sleep(0.05)


def send(settings: Settings, user: str) -> None:
    async def publish() -> None:
        async with Feed(connection(settings), "") as feed:
            await feed.send([Click(event_id=f"e-{user}", user_id=user, item_id="i", category_id="c", ts=wall_ms())])

    asyncio.run(publish())


@pytest.mark.fault(
    "kill -9 of a worker of `everlong up`", "It is restarted, gets its partitions back and applies what came in the meantime"
)
def test_a_killed_worker_gets_its_partitions_back(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path).model_copy(
        update={"kafka_bootstrap": None, "store_url": SecretStr(f"sqlite:///{tmp_path}/rows.db")}
    )
    with Supervisor(tmp_path / "logs", stop_deadline_s=5.0) as supervisor:
        settings, _ = system.start_parts(supervisor, settings, persist=False)
        system.make_topics(settings)
        port = system.start_role(supervisor, "ingest", settings, restart=True)
        store = open_online_store(settings)
        for turn in range(2):
            wait_until(lambda: ready(port) is None, supervisor)
            user = f"u{turn}"
            send(settings, user)
            wait_until(lambda user=user: store.read([Key(USER.name, (user,))])[0] is not None, supervisor)
            killed = supervisor.children["ingest"].pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda killed=killed: supervisor.children["ingest"].pid not in (None, killed), supervisor)
        store.close()

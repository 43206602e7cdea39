"""`everlong demo`: a simulated shop's events become candidates before your eyes, on the real parts, in under three minutes."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from features.events import Event, Topic, encode
from features.reading import FeatureReader
from features.store import OnlineStore
from infra import local
from infra.accounts import Accounts, Line, Standing, close, unanswered
from infra.demo_click import Click, clicked, shown_before
from infra.feed import Feed, users_of, wall_ms
from infra.latency import Latency
from infra.live_table import LiveTable, Picture, comparison, milliseconds
from infra.processes import Supervisor, stop_on_signals
from infra.settings import Settings
from infra.terminal import print_table, progress
from infra.training import DAY_MS, ShopPlan, device_of, shop_history, train_bundle
from infra.wiring import connection, open_online_store
from models.config import Config
from stream.replay import Record, record

DRAIN_S = 60.0
CLICK_AFTER = 0.3  # of the live seconds
TWICE = 50  # every so manyth live event is sent twice, as a producer does after a lost confirmation
FIGURE_EVERY_S = 0.5


class Plan(NamedTuple):
    """How large the demonstration is: live seconds, live events a second, and the simulated shop."""

    seconds: float = 45.0
    rate: float = 60.0
    users: int = 300
    items: int = 1500
    categories: int = 40
    days: float = 30.0
    seed: int = 7


class Result(NamedTuple):
    """What a demonstration came to. `click` is None where no user could be shown."""

    lines: list[Line]
    standing: Standing
    latency: tuple[float | None, float | None]  # p50, p99 in ms
    unanswered: int
    click: Click | None
    live_s: float
    live_events: int

    @property
    def failures(self) -> list[str]:
        """What is not as it must be, a sentence each."""
        found = [f"the counts of {line.topic} do not add up: {line}" for line in self.lines if not line.adds_up]
        if sum(line.dead for line in self.lines) != len(broken(0)):
            found.append(f"{len(broken(0))} broken events were sent, {sum(line.dead for line in self.lines)} are dead letters")
        if self.unanswered:
            found.append(f"{self.unanswered} users have no candidates that answer all of their events")
        if self.click is None or not self.click.changed:
            found.append("the candidates of the shown user did not change after a click")
        return found


def run_demo(settings: Settings, plan: Plan, keep: Path | None = None) -> int:
    """Run the demonstration; 0 if all is well. Data and logs go to `keep`, or to a folder that is removed at the end."""
    console = Console()
    began = time.monotonic()
    with stop_on_signals(), _folder(keep) as folder, Supervisor(folder / "logs", settings.stop_deadline_s) as supervisor:
        own = {"kafka_bootstrap": None, "kafka_security_protocol": "PLAINTEXT", "store_url": None, "bundle": None, "topic_prefix": ""}
        settings = settings.model_copy(update={**own, "data_dir": folder, "replication": 1, "torch_threads": 1})
        result = asyncio.run(_run(supervisor, settings, plan, console))
        supervisor.stop()
    _summarise(result, time.monotonic() - began, console)
    return 1 if result.failures else 0


async def _run(supervisor: Supervisor, settings: Settings, plan: Plan, console: Console) -> Result:
    with _step(console, "broker, store, topics and feature registry"):
        settings, _ = local.start_parts(supervisor, settings, persist=False)
        local.make_topics(settings)
        local.apply_features(settings)
    since_ms = wall_ms()
    shop_plan = ShopPlan(plan.users, plan.items, plan.categories, plan.days, plan.seed, since_ms)
    history = shop_history(shop_plan)
    with _step(console, f"bundle trained on {len(history.events):,} events of {plan.users} users"), progress("training") as tell:
        config = Config(epochs=2, per_user=20)
        train_bundle(history, settings.bundle_path, config=config, seed=plan.seed, device=device_of(settings.device), tell=tell)
    with _step(console, "workers " + ", ".join(local.WORKERS)):
        ports = local.start_workers(supervisor, settings, restart=False)
        local.wait_ready(supervisor, ports)
    store = open_online_store(settings)
    accounts = Accounts(ports.values())
    try:
        async with Feed(connection(settings), settings.topic_prefix, accounts.sent) as feed:
            with _step(console, f"{len(history.items):,} items and {len(history.events):,} past events applied, every user answered"):
                await feed.send_all([*history.items, *history.events])
                await _drain(supervisor, accounts, store, users_of(history.events))
            live = _Live(supervisor, settings, plan, store, accounts, feed, history.events, console)
            measured = await live.run(shop_plan)
            users = users_of([*history.events, *live.events])
            await _drain(supervisor, accounts, store, users, strict=False)
        lines = close(accounts.look(), connection(settings), settings.topic_prefix, since_ms - DAY_MS)
        missing = len(unanswered(store, users))
        return Result(lines, accounts.look(), measured, missing, live.click, live.elapsed_s, len(live.events))
    finally:
        store.close()


class _Live:
    """The live part: a steady stream, the view, and one click that is followed."""

    def __init__(
        self,
        supervisor: Supervisor,
        settings: Settings,
        plan: Plan,
        store: OnlineStore,
        accounts: Accounts,
        feed: Feed,
        past: "list[Event] | tuple[Event, ...]",
        console: Console,
    ) -> None:
        self._supervisor, self._settings, self._plan, self._accounts = supervisor, settings, plan, accounts
        self._reader, self._feed, self._past, self._console = FeatureReader(store), feed, past, console
        self._began = time.monotonic()
        self.events: list[Event] = []
        self.click: Click | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the stream began."""
        return time.monotonic() - self._began

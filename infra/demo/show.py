"""`everlong demo`: a simulated shop's events become candidates, on a real broker, store and workers, in under three minutes."""

import asyncio
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from features.events import Item
from features.store import OnlineStore
from features.store.reader import FeatureReader
from infra.clock import wall_ms
from infra.demo.latency import Latency
from infra.demo.live import Followed, LiveStream, broken
from infra.demo.table import LiveTable, Picture, comparison, line
from infra.errors import FolderNotEmptyError
from infra.local import system
from infra.local.accounts import Accounts, Line, close, unanswered
from infra.local.feed import Feed, users_of
from infra.local.processes import Supervisor, stop_on_signals
from infra.settings import Settings
from infra.terminal import console, plain, progress, safe, styled
from infra.training.from_files import DAY_MS, FileHistory, ShopPlan, shop_history, train_bundle
from infra.wiring import choose_device, connection, open_online_store
from models.config import Config

DRAIN_S = 90.0
PLAIN_WIDTH = 150  # of tables in a file or pipe
CONFIG = Config().replace(epochs=2, per_user=20)
SHOP = ShopPlan(items=1500, days=30.0, seed=7)


class DemoPlan(NamedTuple):
    """The size of the demo: live seconds, live events per second, and the simulated shop."""

    seconds: float = 45.0
    rate: float = 60.0
    shop: ShopPlan = SHOP


class DemoResult(NamedTuple):
    """The result of a demo: the account of each topic, the last figures, users without candidates, the followed click."""

    lines: list[Line]
    picture: Picture
    unanswered: int
    unmatched: int
    followed: Followed | None

    @property
    def failures(self) -> list[str]:
        """A sentence for each failure."""
        dead, expected = sum(line.dead for line in self.lines), len(broken(0))
        found = [f"the counts of {line.topic} do not add up: {line._asdict()}" for line in self.lines if not line.adds_up]
        if dead != expected:
            found.append(f"{expected} broken events were sent, {dead} are dead letters")
        if self.unanswered:
            found.append(f"{self.unanswered} users have no candidates that answer all of their events")
        if self.unmatched:
            found.append(f"no candidates came for {self.unmatched} live events")
        if self.followed is None or not self.followed.changed:
            found.append("the candidates of the shown user did not change as they must after the click")
        return found


def run_demo(settings: Settings, plan: DemoPlan, keep: Path | None = None) -> int:
    """Run the demo; 0 if nothing failed. Data and logs go to `keep`, or to a folder that is removed at the end.

    Raises:
        FolderNotEmptyError: `keep` is not empty: data of an earlier run would be counted too.
    """
    shown = console(None if sys.stdout.isatty() else PLAIN_WIDTH)
    began = time.monotonic()
    with stop_on_signals(), _folder(keep) as folder:
        own = {"kafka_bootstrap": None, "kafka_security_protocol": "PLAINTEXT", "store_url": None, "bundle": None, "topic_prefix": ""}
        settings = settings.model_copy(update={**own, "data_dir": folder, "replication": 1, "torch_threads": 1})
        with system.children(settings) as supervisor:
            result = asyncio.run(_run(supervisor, settings, plan, shown))
    _summarise(result, time.monotonic() - began, shown)
    return 1 if result.failures else 0


async def _run(supervisor: Supervisor, settings: Settings, plan: DemoPlan, shown: Console) -> DemoResult:
    with _step(shown, "broker, store, topics and feature registry"):
        settings, _ = system.start_parts(supervisor, settings, persist=False)
        system.make_topics(settings)
        system.keep_small(supervisor, settings)
        system.apply_features(settings)
    plan = plan._replace(shop=plan.shop._replace(end_ms=wall_ms()))
    history = shop_history(plan.shop)
    trained = f"a small bundle, trained on {len(history.events):,} events of {plan.shop.users:,} users"
    with _step(shown, trained), progress("training") as tell:
        train_bundle(history, settings.bundle_path, config=CONFIG, seed=plan.shop.seed, device=choose_device(settings), tell=tell)
    with _step(shown, "workers: " + ", ".join(system.WORKERS)):
        ports = system.start_workers(supervisor, settings, restart=False)
        system.wait_ready(supervisor, ports)
    accounts = Accounts(ports.values())
    store = open_online_store(settings)
    try:
        async with Feed(connection(settings), settings.topic_prefix, accounts.sent) as feed:
            with _step(shown, f"{len(history.items):,} items and {len(history.events):,} past events applied, every user answered"):
                await feed.send_all([*history.items, *history.events])
                await _drain(supervisor, accounts, store, users_of(history.events))
            return await _stream(supervisor, settings, plan, history, accounts, feed, store, shown)
    finally:
        store.close()


async def _stream(
    supervisor: Supervisor,
    settings: Settings,
    plan: DemoPlan,
    history: FileHistory,
    accounts: Accounts,
    feed: Feed,
    store: OnlineStore,
    shown: Console,
) -> DemoResult:
    broker = connection(settings)
    user = _busiest(history)
    async with Latency(broker, settings.topic_prefix) as latency:
        live = LiveStream(supervisor, accounts, feed, FeatureReader(store), latency, settings.topic_prefix)
        with LiveTable(shown) as view:
            events = plan.shop.open().live(wall_ms(), plan.rate, history.events)
            await live.run(events, plan.seconds, user, history.events, view)
            picture = await live.picture(plan.seconds)
            users = users_of([*history.events, *live.events])
            await _drain(supervisor, accounts, store, users)
            await system.wait_until(lambda: latency.unanswered == 0, supervisor, 5.0, "candidates of the last events", strict=False)
            figures = await live.picture(plan.seconds)
            view.show(figures._replace(elapsed_s=picture.elapsed_s, events_per_s=picture.events_per_s))
        lines = await asyncio.to_thread(close, accounts.look(), broker, settings.topic_prefix, plan.shop.end_ms - DAY_MS)
        final = figures._replace(elapsed_s=picture.elapsed_s, events_per_s=picture.events_per_s)
        return DemoResult(lines, final, len(unanswered(store, users)), latency.unanswered, live.followed)


async def _drain(supervisor: Supervisor, accounts: Accounts, store: OnlineStore, users: Sequence[str]) -> None:
    """Wait until all events are applied and every user's candidates include them; the result reports what is still missing."""
    await system.wait_until(lambda: accounts.look().lag <= 0, supervisor, DRAIN_S, "events to be applied", strict=False)
    await system.wait_until(lambda: not unanswered(store, users), supervisor, DRAIN_S, "candidates of every user", strict=False)


def _busiest(history: FileHistory) -> str:
    """The user with the most events."""
    return Counter(event.user_id for event in history.events if not isinstance(event, Item)).most_common(1)[0][0]


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise FolderNotEmptyError(f"{keep} is not empty", "choose a new folder with --keep")
        yield keep.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="everlong-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _step(shown: Console, what: str) -> Iterator[None]:
    """Print a finished step and its duration."""
    began = time.monotonic()
    yield
    shown.print(safe(f"{time.monotonic() - began:6.1f} s  {what}"), soft_wrap=True)


def _summarise(result: DemoResult, seconds: float, shown: Console) -> None:
    shown.print()
    shown.print(styled(("What became of every record", "bold")))
    for account in result.lines:
        sums = f"{account.applied:,} applied + {account.duplicate:,} duplicates + {account.dead:,} dead letters"
        verdict = "" if account.adds_up else "  does not add up"
        shown.print(styled((f"  {account.topic:8} {account.sent:7,} in = {sums}", ""), (verdict, "red")), soft_wrap=True)
    shown.print(styled(("Live", "bold")))
    shown.print(plain("  " + line(result.picture).strip()), soft_wrap=True)
    if result.followed is not None:
        followed = result.followed
        answer = f"{followed.new} new candidates, published {followed.answered_ms} ms after the click"
        shown.print(plain(f"  {followed.sentence} by {followed.user}: {answer}"), soft_wrap=True)
        if not shown.is_terminal:
            for table in comparison(result.picture):
                shown.print(table)
    for failure in result.failures:
        shown.print(styled(("not well:", "red"), (f" {failure}", "")), soft_wrap=True)
    outcome = [("something is wrong", "bold red")]
    if not result.failures:
        outcome = [("all is well", "bold green"), (": nothing lost, nothing counted twice", "bold")]
    shown.print(styled(*outcome, (f", {seconds:.0f} s in all", "")), soft_wrap=True)

"""Event-to-candidate latency at a steady rate through all workers: from sending an event to receiving the set that answers it."""

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench import parts, table
from features.events import Event, Item
from infra.clock import wall_ms
from infra.demo.latency import Latency
from infra.local import system
from infra.local.accounts import Accounts, unanswered
from infra.local.feed import Feed, users_of
from infra.local.processes import Supervisor
from infra.settings import Settings
from infra.training.from_files import FileHistory, ShopPlan, shop_history, train_bundle
from infra.wiring import choose_device, connection, open_online_store
from models.config import Config

RATES = (100, 500)
SHOP = ShopPlan(users=600, items=2000, categories=40, days=30.0, seed=7)
CONFIG = Config().replace(epochs=1, per_user=10)
DRAIN_S = 120.0
LAST_S = 15.0


def measure(options: argparse.Namespace, folder: Path) -> str:
    """The section of the page."""
    loads = [table.load()]
    with parts.empty_system(folder / "latency", None) as (supervisor, settings):
        plan = SHOP._replace(end_ms=wall_ms())
        history = shop_history(plan)
        system.apply_features(settings)
        train_bundle(history, settings.bundle_path, config=CONFIG, seed=0, device=choose_device(settings), tell=lambda done, total: None)
        ports = system.start_workers(supervisor, settings, restart=False)
        system.wait_ready(supervisor, ports)
        rows = asyncio.run(_measure(supervisor, settings, list(ports.values()), plan, history, options.seconds))
    loads.append(table.load())
    heads = ("requested events/s", "sent", "events", "p50 ms", "p99 ms", "candidate sets", "unanswered", "levels", "load")
    return "\n".join([*_head(history, options), "", *table.markdown(heads, rows), "", table.stamp(loads)])


async def _measure(
    supervisor: Supervisor, settings: Settings, ports: Sequence[int], plan: ShopPlan, history: FileHistory, seconds: float
) -> list[tuple[str, ...]]:
    broker, store, accounts = connection(settings), open_online_store(settings), Accounts(ports)
    try:
        async with Feed(broker, settings.topic_prefix, accounts.sent) as feed:
            await feed.send_all([*history.items, *history.events])
            await system.wait_until(lambda: accounts.look().lag <= 0, supervisor, DRAIN_S, "the history to be applied")
            users = users_of(history.events)
            await system.wait_until(lambda: not unanswered(store, users), supervisor, DRAIN_S, "candidates of every user")
            past = list(history.events)
            return [await _at(supervisor, settings, accounts, feed, plan, past, rate, seconds) for rate in RATES]
    finally:
        store.close()


async def _at(
    supervisor: Supervisor,
    settings: Settings,
    accounts: Accounts,
    feed: Feed,
    plan: ShopPlan,
    past: list[Event],
    rate: int,
    seconds: float,
) -> tuple[str, ...]:
    """One rate; its events are added to `past`."""
    before = accounts.look().samples.by("level", "everlong_refreshes_total")
    sent: list[Event] = []
    async with Latency(connection(settings), settings.topic_prefix) as latency:

        def on_sent(events: Sequence[Event], sent_ms: int) -> None:
            sent.extend(events)
            latency.sent(events, sent_ms)

        began = time.monotonic()
        await feed.send_live(plan.open().live(wall_ms(), rate, past), wall_ms() + int(seconds * 1000), on_sent)
        took = time.monotonic() - began
        load = table.load()
        await system.wait_until(lambda: latency.unanswered == 0, supervisor, LAST_S, "the last candidates", strict=False)
        levels: Counter[str] = accounts.look().samples.by("level", "everlong_refreshes_total") - before
        p50, p99 = latency.quantile_ms(0.5), latency.quantile_ms(0.99)
        past += sent
        behaviour = sum(not isinstance(event, Item) for event in sent)
        shown = ", ".join(f"{level} {count:,}" for level, count in sorted(levels.items()))
        figures = (f"{rate}", f"{len(sent) / took:,.0f}/s", f"{behaviour:,}", f"{p50:.0f}", f"{p99:.0f}", f"{latency.sets:,}")
        return (*figures, f"{latency.unanswered}", shown, load)


def _head(history: FileHistory, options: argparse.Namespace) -> list[str]:
    return [
        "## Latency: from an event to its candidates",
        "",
        f"A {history.name}.",
        f"Its {len(history.events):,} past events are applied first, then live clicks, queries and orders arrive at a steady rate for",
        f"{options.seconds:.0f} s each. Measured by a client, from just before an event is published until the candidate",
        "set that includes it was read from the topic `candidates`. Broker, store, three workers, sender and client share the machine.",
    ]

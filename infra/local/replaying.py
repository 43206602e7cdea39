"""A file through the whole path: published, and where nothing runs yet also applied, answered and accounted for."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from features import sources
from features.events import Refusal
from infra.clock import wall_ms
from infra.local import system
from infra.local.accounts import Accounts, Line, Standing, close, unanswered
from infra.local.feed import Feed, users_of
from infra.local.processes import Supervisor
from infra.offline.training import config_of, file_history, train_bundle
from infra.settings import Settings
from infra.terminal import print_json, print_table, progress, say
from infra.wiring import choose_device, connection, open_online_store
from models.bundle import MANIFEST
from stream.connection import Connection
from stream.replay import replay

APPLY_S = 1800.0
SHOWN_REFUSALS = 5


async def publish_file(
    broker: Connection, prefix: str, path: Path, pace: float | None, products: Path | None
) -> tuple[dict[str, int], int]:
    """Publish a file, `pace` times as fast as it happened (None: at once); gives records by topic, and rows that are no event."""
    refused = 0

    def report(refusal: Refusal) -> None:
        nonlocal refused
        refused += 1
        if refused <= SHOWN_REFUSALS:
            say(f"{path.name} row {refusal.position} is no event: {refusal.reason}, {refusal.detail}")

    async with Feed(broker, prefix) as feed:
        with progress(f"publishing {path.name}") as tell:
            await replay(path, feed.publish, speed=pace or "max", prefix=prefix, progress=tell, products=products, report=report)
        return dict(feed.sent), refused


def replay_alone(settings: Settings, path: Path, pace: float | None, products: Path | None, as_json: bool) -> int:
    """Replay on embedded parts that live as long as it takes; 0 if every event is accounted for and every user has candidates."""
    with system.children(settings) as supervisor:
        settings, _ = system.start_parts(supervisor, settings, persist=True)
        system.make_topics(settings)
        system.apply_features(settings)
        _ensure_bundle(settings, path, products)
        since_ms = wall_ms()
        ports = system.start_workers(supervisor, settings, restart=False)
        system.wait_ready(supervisor, ports)
        sent, refused, standing = asyncio.run(_apply(supervisor, settings, list(ports.values()), path, pace, products))
        lines = close(standing, connection(settings), settings.topic_prefix, since_ms)
        store = open_online_store(settings)
        without = unanswered(store, users_of(sources.read(path, lambda refusal: None)))
        store.close()
    _print_accounts(lines, refused, without, as_json)
    return 0 if sent and not without and all(line.adds_up for line in lines) else 1


def _ensure_bundle(settings: Settings, path: Path, products: Path | None) -> None:
    """Train a bundle on the file itself where there is none."""
    if (settings.bundle_path / MANIFEST).exists():
        return
    say(f"there is no bundle in {settings.bundle_path}: training one on {path.name} first")
    history = file_history(path, products)
    quick = msgspec.structs.replace(config_of(1), pretraining=False)
    with progress("training") as tell:
        train_bundle(history, settings.bundle_path, config=quick, seed=0, device=choose_device(settings), tell=tell)


async def _apply(
    supervisor: Supervisor, settings: Settings, ports: Sequence[int], path: Path, pace: float | None, products: Path | None
) -> tuple[dict[str, int], int, Standing]:
    accounts = Accounts(ports)
    sent, refused = await publish_file(connection(settings), settings.topic_prefix, path, pace, products)
    accounts.sent.update(sent)
    store = open_online_store(settings)
    try:
        with progress("applied") as tell:
            total = sum(sent.values())

            def applied() -> bool:
                taken = accounts.look().taken
                tell(min(taken, total), total)
                return taken >= total

            await system.wait_until(applied, supervisor, APPLY_S, "events to be applied", poll_s=0.5)
        users = users_of(sources.read(path, lambda refusal: None))
        with progress("users with candidates") as tell:

            def answered() -> bool:
                missing = len(unanswered(store, users))
                tell(len(users) - missing, len(users))
                return not missing

            await system.wait_until(answered, supervisor, APPLY_S, "candidates of every user", poll_s=0.5)
    finally:
        store.close()
    return sent, refused, accounts.look()


def _print_accounts(lines: list[Line], refused: int, without: list[str], as_json: bool) -> None:
    if as_json:
        topics = {line.topic: line._asdict() | {"adds_up": line.adds_up} for line in lines}
        print_json({"topics": topics, "refused_rows": refused, "users_without_candidates": without})
        return
    columns = ("topic", "in", "= applied", "+ duplicates", "+ dead letters", "redelivered", "adds up")
    rows = [
        (x.topic, *(f"{n:,}" for n in (x.sent, x.applied, x.duplicate, x.dead, x.redelivered)), "yes" if x.adds_up else "NO") for x in lines
    ]
    print_table("what became of every record", columns, rows)
    say(f"rows of the file that are no event: {refused:,}; users without candidates: {len(without):,}")

"""Replays a file through the whole system: publishes it, and if nothing runs yet, also applies it and accounts for every record."""

import asyncio
from collections.abc import Sequence

from features.sources import Reading
from infra.clock import wall_ms
from infra.local import embedded, system
from infra.local.accounts import Accounts, Balance, Line, answerable, close, dead_of, unanswered
from infra.local.feed import Feed
from infra.local.processes import Supervisor
from infra.local.trimming import Room
from infra.settings import Settings
from infra.terminal import print_json, print_table, progress, say
from infra.training.from_files import config_of, file_history, train_bundle
from infra.wiring import choose_device, connection, open_online_store
from models.bundle import MANIFEST
from models.config import PretrainingConfig
from stream.kafka.bounded_log import BOUNDS
from stream.kafka.connection import Connection
from stream.kafka.topics import DEAD_LETTERS
from stream.pipelines.replay import replay

APPLY_S = 1800.0
ALL_DEAD_LETTERS = BOUNDS._replace(retained={**BOUNDS.retained, DEAD_LETTERS: 1 << 40})  # the accounts count them


async def publish_file(broker: Connection, prefix: str, reading: Reading, pace: float | None, room: Room | None = None) -> dict[str, int]:
    """Publish a file at `pace` times its original speed (None: as fast as possible); returns the number of records sent by topic.

    With a `room`, it waits for workers that are too far behind.
    """
    async with Feed(broker, prefix, room=room) as feed:
        with progress(f"publishing {reading.path.name}") as tell:
            await replay(reading, feed.publish, speed=pace or "max", prefix=prefix, progress=tell)
        return dict(feed.sent)


def replay_alone(settings: Settings, reading: Reading, pace: float | None, as_json: bool) -> int:
    """Replay on an embedded broker and store that stop at the end.

    Returns 0 if every event is accounted for and every user with an event that is not a dead letter has candidates.
    """
    with system.children(settings) as supervisor:
        settings, _ = system.start_parts(supervisor, settings, persist=True)
        system.make_topics(settings)
        system.keep_small(supervisor, settings, ALL_DEAD_LETTERS)
        system.apply_features(settings)
        _ensure_bundle(settings, reading)
        since_ms = wall_ms()
        ports = system.start_workers(supervisor, settings, restart=False)
        system.wait_ready(supervisor, ports)
        standing, without = asyncio.run(_apply(supervisor, settings, list(ports.values()), reading, pace, since_ms))
        lines = close(standing, connection(settings), settings.topic_prefix, since_ms)
    _print_accounts(lines, reading.refusals.total, without, as_json)
    if not as_json:
        folder = "" if settings.data_dir == Settings.model_fields["data_dir"].default else f"EVERLONG_DATA_DIR={settings.data_dir} "
        say(
            f"rows and candidates are kept in {settings.data_dir}; next: `{folder}everlong up --no-shop` serves them, page and API included"
        )
    return 0 if standing.sent and not without and all(line.adds_up for line in lines) else 1


def _ensure_bundle(settings: Settings, reading: Reading) -> None:
    """Train a bundle on the file if there is none."""
    if (settings.bundle_path / MANIFEST).exists():
        return
    say(f"there is no bundle in {settings.bundle_path}: training one on {reading.path.name} first")
    history = file_history(reading)
    quick = config_of(1).replace(pretraining=PretrainingConfig(epochs=0))
    with progress("training") as tell:
        train_bundle(history, settings.bundle_path, config=quick, seed=0, device=choose_device(settings), tell=tell)


async def _apply(
    supervisor: Supervisor, settings: Settings, ports: Sequence[int], reading: Reading, pace: float | None, since_ms: int
) -> tuple[Balance, list[str]]:
    """Publish and wait until everything is applied; returns the accounts, and the users without candidates."""
    accounts = Accounts(ports)
    room = system.room(settings, embedded.BROKER in supervisor.children)
    sent = await publish_file(connection(settings), settings.topic_prefix, reading, pace, room)
    accounts.sent.update(sent)
    store = open_online_store(settings)
    try:
        with progress("applied, duplicates or dead letters") as tell:
            total = sum(sent.values())

            def applied() -> bool:
                taken = accounts.look().taken
                tell(min(taken, total), total)
                return taken >= total

            await system.wait_until(applied, supervisor, APPLY_S, "events to be applied", poll_s=0.5)
        standing = accounts.look()
        if standing.dead:
            say(f"{standing.dead:,} of them are dead letters: `everlong dlq list` shows why")
        users = answerable(reading.events(), dead_of(standing, connection(settings), settings.topic_prefix, since_ms))
        with progress("users with candidates") as tell:

            def answered() -> bool:
                missing = len(unanswered(store, users))
                tell(len(users) - missing, len(users))
                return not missing

            await system.wait_until(answered, supervisor, APPLY_S, "candidates of every user", poll_s=0.5)
        return accounts.look(), unanswered(store, users)
    finally:
        store.close()


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
    say(f"refused rows of the file: {refused:,}; users without candidates: {len(without):,}")

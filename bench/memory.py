"""Bytes that the rows take: packed, and in a Valkey with keys, versions and its own overhead."""

import argparse
from pathlib import Path

import redis

from bench import parts, table
from features.codec import pack
from features.history import offline_rows
from features.store import Key, LogPosition, Stored
from features.table import USER, USER_CATEGORY
from infra.wiring import open_online_store

AT_ONCE = 1000
HEADS = ("view", "rows", "rows per user", "packed bytes per row", "bytes per row in Valkey", "bytes per user in Valkey")


def measure(options: argparse.Namespace, folder: Path) -> str:
    """The section of the page."""
    loads, data = [table.load()], parts.load_data(options.data, options.events)
    users, categories = offline_rows(data.events)
    rows = {USER.name: {Key(USER.name, (user,)): pack(row) for user, row in users.items()}}
    rows[USER_CATEGORY.name] = {Key(USER_CATEGORY.name, pair): pack(row) for pair, row in categories.items()}
    taken = {}
    with parts.empty_system(folder / "memory", None) as (_, settings):
        store = open_online_store(settings)
        with redis.Redis.from_url(parts.url_of(settings)) as server:
            for view, packed in rows.items():
                before = server.info("memory")["used_memory"]
                stored = [(key, Stored(value, LogPosition(), 0)) for key, value in packed.items()]
                for start in range(0, len(stored), AT_ONCE):
                    store.write(stored[start : start + AT_ONCE])
                taken[view] = server.info("memory")["used_memory"] - before
        store.close()
    loads.append(table.load())
    lines = [_line(view, list(packed.values()), taken[view], len(users)) for view, packed in rows.items()]
    whole = sum(taken.values())
    return "\n".join(
        [
            "## Memory: bytes of features per user",
            "",
            f"{len(data.events):,} events of {len(users):,} users, {data.name}. The size of a row in Valkey includes its key, its version",
            "and the server's overhead. Interests, candidate sets and items come on top.",
            "",
            *table.markdown(HEADS, lines),
            "",
            f"Together {whole / len(users) / 1000:.1f} kB per user, {whole / len(data.events):.0f} bytes per event: "
            f"{whole / len(users) * 1e6 / 1e9:.1f} GB for a million such users.",
            "",
            table.stamp(loads),
        ]
    )


def _line(view: str, packed: list[bytes], taken: int, users: int) -> tuple[str, ...]:
    rows = len(packed)
    mean = sum(map(len, packed)) / rows
    return f"`{view}`", f"{rows:,}", f"{rows / users:.1f}", f"{mean:,.0f}", f"{taken / rows:,.0f}", f"{taken / users:,.0f}"

"""The plain way: a stock Faust agent that takes event after event and writes each one's features with `write_to_online_store`.

Generous to it: rows stay in a dict for ever, are merged by our code and written packed (typed lists take Feast several times
longer), and nothing is published, versioned or dead-lettered.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import faust
import msgspec
import pandas as pd

from bench.parts import Way, report
from features.apply import apply
from features.codec import pack
from features.events import Click, Order, Query
from features.feast import definitions
from features.rows import CategoryRow, UserRow, behaviours, search
from features.store.layout import stored_name
from features.table import APPLIED, PACKED, USER, USER_CATEGORY
from stream.kafka.topics import BEHAVIOUR


class Features:
    """Rows in memory, each written through as it changes."""

    def __init__(self, store_url: str, registry: Path) -> None:
        self._feast = definitions.apply(store_url, registry)
        self._users: dict[str, UserRow] = {}
        self._categories: dict[str, dict[str, CategoryRow]] = {}
        self.rows = 0

    def take(self, value: dict[str, Any]) -> None:
        """Apply one event."""
        kind: type[Click | Order | Query] = Query if "text" in value else Order if "lines" in value else Click
        event = msgspec.convert(value, kind)
        found = [] if isinstance(event, Query) else behaviours(event)
        queries = [search(event)] if isinstance(event, Query) else []
        categories = self._categories.setdefault(event.user_id, {})
        applied = apply(self._users.get(event.user_id, UserRow()), categories, found, queries)
        self._users[event.user_id] = applied.user
        categories.update(applied.categories)
        self._write(USER.name, {"user_id": [event.user_id]}, [pack(applied.user)], event.ts)
        if applied.categories:
            keys = {"user_id": [event.user_id] * len(applied.categories), "category": list(applied.categories)}
            self._write(USER_CATEGORY.name, keys, [pack(row) for row in applied.categories.values()], event.ts)

    def _write(self, view: str, keys: dict[str, list[str]], packed: list[bytes], ts: int) -> None:
        now = pd.Timestamp(ts, unit="ms", tz="UTC")
        columns = {stored_name(view, PACKED): packed, stored_name(view, APPLIED): [""] * len(packed)}
        self._feast.write_to_online_store(view, pd.DataFrame(keys | columns | {"event_timestamp": now, "created": now}))
        self.rows += len(packed)


def make_app(options: argparse.Namespace, features: Features) -> faust.App:
    app = faust.App(
        options.group, broker=f"kafka://{options.bootstrap}", web_enabled=False, topic_disable_leader=True, datadir=str(options.out.parent)
    )
    taken, began, cpu_began = 0, 0.0, 0.0

    @app.agent(app.topic(*(spec.name for spec in BEHAVIOUR)))
    async def ingest(stream: Any) -> None:
        nonlocal taken, began, cpu_began
        async for value in stream:
            if taken > options.events:
                continue
            features.take(value)
            taken += 1
            if taken == 1:
                began, cpu_began = time.monotonic(), time.process_time()
            elif taken == options.events:
                seconds, cpu_s = time.monotonic() - began, time.process_time() - cpu_began
                report(options.out, Way(events=taken - 1, seconds=seconds, cpu_s=cpu_s, rows=features.rows))

    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "store", "group"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    features = Features(options.store, options.out.parent / f"{options.group}.db")
    faust.Worker(make_app(options, features), loglevel="warning").execute_from_commandline()


if __name__ == "__main__":
    main()

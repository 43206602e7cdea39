"""Counts of a file's contents, which `everlong check` prints."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from features.events import Click, Item, Order, Query
from features.sources.kinds import NAMES, ORDER, SEARCH
from features.sources.products import Products
from features.sources.reading import Reading
from features.sources.refusals import Refusals

DOMINANT, TIMES_MEAN = 0.05, 10  # a user with a larger share of the rows, and this many times the mean, is reported


class Refusing(msgspec.Struct, frozen=True):
    """Refused rows: their number, counts by reason, unknown kinds by value, and the first ones as (row, reason, sentence)."""

    rows: int
    share: float
    reasons: dict[str, int]
    kinds: dict[str, int]
    first: list[tuple[int, str, str]]


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """A table of products: its interpretation, and its overlap with the events."""

    file: str
    format: str
    rows: int
    products: int
    columns: dict[str, str]
    attributes: list[str]
    ignored: list[str]
    notes: list[str]
    embeddings: dict[str, dict[int, int]]  # by kind and width
    touched: int  # products with events
    refused: Refusing


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A file of events. Times are milliseconds since the epoch; `kinds` counts rows (in Everlong's format: events)."""

    file: str
    format: str
    rows: int
    events: int
    columns: dict[str, str]
    ignored: list[str]
    notes: list[str]
    time: str
    first_ms: int | None
    last_ms: int | None
    kinds: dict[str, int]
    users: int
    items: int
    categories: int
    baskets: int
    queries: int
    embeddings: dict[str, dict[int, int]]
    suspicious: list[str]
    refused: Refusing
    products: Described | None


class _Counts:
    """Counts of values over batches; kept in Arrow, since there may be millions."""

    def __init__(self) -> None:
        self._table = pa.table({"value": pa.array([], pa.string()), "times": pa.array([], pa.int64())})

    def add(self, column: pa.ChunkedArray) -> None:
        new = pc.value_counts(column.combine_chunks())
        both = pa.concat_tables([self._table, pa.table({"value": new.field("values"), "times": new.field("counts")})])
        grouped = both.group_by("value").aggregate([("times", "sum")])
        self._table = pa.table({"value": grouped["value"], "times": grouped["times_sum"]})

    def __len__(self) -> int:
        return len(self._table)

    def most(self) -> tuple[str, int]:
        """The most frequent value; on a tie the first by name."""
        top = self._table.sort_by([("times", "descending"), ("value", "ascending")]).slice(0, 1).to_pylist()
        return (top[0]["value"], top[0]["times"]) if top else ("", 0)


def summarise(reading: Reading) -> Summary:
    """Count a file's contents; a table of products is compared with its events."""
    counted = _rows(reading) if reading.table is not None else _events(reading)
    columns: dict[str, str] = {}
    ignored: list[str] = []
    if reading.table is not None:
        columns = {str(role): name for role, name in reading.table.columns.used.items()}
        ignored = list(reading.table.columns.rest)
    return Summary(
        file=reading.path.name,
        format=str(reading.detected) + ("" if reading.table is not None else ", events of docs/events.md"),
        rows=reading.rows,
        events=reading.count,
        columns=columns,
        ignored=ignored,
        notes=reading.notes,
        time=str(reading.table.times) if reading.table is not None else "milliseconds",
        refused=refusing(reading.refusals, reading.rows),
        products=None if reading.products is None else _described(reading, reading.products),
        **counted,
    )


def refusing(refusals: Refusals, rows: int) -> Refusing:
    """The refused rows of a file with this many rows."""
    return Refusing(
        rows=refusals.total,
        share=refusals.total / max(1, rows),
        reasons={str(reason): count for reason, count in refusals.counts.most_common()},
        kinds=dict(refusals.kinds.most_common()),
        first=[(refused.row, str(refused.reason), refused.detail) for refused in refusals.first],
    )


def _rows(reading: Reading) -> dict[str, Any]:
    users, items, categories, queries, kinds = _Counts(), _Counts(), _Counts(), _Counts(), Counter[int]()
    first_ms = last_ms = None
    for chunk in reading.chunks():
        if not len(chunk):
            continue
        kinds.update({found["values"]: found["counts"] for found in pc.value_counts(chunk["kind"]).to_pylist()})
        users.add(chunk["user"])
        searched = pc.field("kind") == SEARCH
        done = chunk.filter(~searched)
        items.add(done["item"])
        categories.add(done["category"])
        queries.add(chunk.filter(searched)["text"])
        first_ms = chunk["ts"][0].as_py() if first_ms is None else first_ms
        last_ms = chunk["ts"][-1].as_py()
    rows = sum(kinds.values())
    return {
        "first_ms": first_ms,
        "last_ms": last_ms,
        "kinds": {NAMES[code]: kinds[code] for code in sorted(kinds)},
        "users": len(users),
        "items": len(items),
        "categories": len(categories),
        "baskets": reading.count - (rows - kinds[ORDER]),
        "queries": len(queries),
        "embeddings": {},
        "suspicious": _suspicious(*users.most(), len(users), rows),
    }


def _events(reading: Reading) -> dict[str, Any]:
    users, kinds = Counter[str](), Counter[str]()
    items: set[str] = set()
    categories: set[str] = set()
    texts: set[str] = set()
    described: list[Item] = []
    first_ms = last_ms = None
    for event in reading.events():
        first_ms, last_ms = event.ts if first_ms is None else first_ms, event.ts
        if isinstance(event, Item):
            described.append(msgspec.structs.replace(event, attributes={}))
            continue
        users[event.user_id] += 1
        if isinstance(event, Query):
            kinds["search"] += 1
            texts.add(event.text)
            continue
        kinds[event.kind if isinstance(event, Click) else "order"] += 1
        for line in event.lines if isinstance(event, Order) else (event,):
            items.add(line.item_id)
            categories.add(line.category_id)
    top, times = max(users.items(), key=lambda found: found[1], default=("", 0))
    return {
        "first_ms": first_ms,
        "last_ms": last_ms,
        "kinds": dict(sorted((kinds + Counter({"item": len(described)})).items())),
        "users": len(users),
        "items": len(items | {item.item_id for item in described}),
        "categories": len(categories),
        "baskets": kinds["order"],
        "queries": len(texts),
        "embeddings": _widths(described),
        "suspicious": _suspicious(top, times, len(users), users.total()),
    }


def _described(reading: Reading, products: Products) -> Described:
    touched = {item.item_id for item in reading.touched()} & products.ids
    return Described(
        file=products.path.name,
        format=str(products.detected),
        rows=products.rows,
        products=len(products),
        columns={str(role): name for role, name in products.columns.used.items()},
        attributes=products.attributes,
        ignored=products.ignored,
        notes=products.notes,
        embeddings=_widths(products.items(0, {})),
        touched=len(touched),
        refused=refusing(products.refusals, products.rows),
    )


def _widths(items: Iterable[Item]) -> dict[str, dict[int, int]]:
    found: dict[str, Counter[int]] = {"image": Counter(), "text": Counter()}
    for item in items:
        for kind, vector in (("image", item.image_embedding), ("text", item.text_embedding)):
            if vector is not None:
                found[kind][len(vector)] += 1
    return {kind: dict(widths.most_common()) for kind, widths in found.items() if widths}


def _suspicious(user: str, times: int, users: int, rows: int) -> list[str]:
    if times <= DOMINANT * rows or times * users <= TIMES_MEAN * rows:
        return []
    return [f"user {user!r} has {times / rows:.0%} of the rows: is it a bot, or a placeholder for anonymous visitors?"]

"""Turns rows with the schema of features.sources.tables into events, independent of the order of the rows.

Rows of kind `order` with the same user, time stamp and order id are one basket. An event id is a hash of a row's content and its
occurrence (the n-th identical row gets n).
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.events import MAX_ORDER_LINES, Click, Event, Item, Order, OrderLine, Query
from features.sources.kinds import ORDER, SEARCH
from features.sources.tables import LONGEST_TEXT, NO_POSITION

BATCH_ROWS = 65_536
_CLICK_KINDS = {1: "click", 2: "cart", 3: "favourite"}
_BASKET = ("ts", "user", "kind", "order")
_ORDER_OF = (*_BASKET, "item", "category", "text", "query", "session", "price", "quantity", "position")


def in_order(chunk: pa.Table) -> pa.Table:
    """The rows of a chunk in canonical order."""
    return chunk.sort_by([(name, "ascending") for name in _columns(chunk)])


def count(chunk: pa.Table) -> int:
    """The number of events in an ordered chunk."""
    return len(_group(chunk)[0])


def events(chunk: pa.Table) -> Iterator[Event]:
    """The events of an ordered chunk, ascending by time."""
    starts, occurrence = _group(chunk)
    ends = np.append(starts[1:], len(chunk))
    for first in range(0, len(starts), BATCH_ROWS):
        low = int(starts[first])
        high = int(ends[min(first + BATCH_ROWS, len(ends)) - 1])
        part = chunk.slice(low, high - low)
        columns = {name: part[name].to_pylist() for name in _columns(chunk)}
        bounds = zip(starts[first : first + BATCH_ROWS] - low, ends[first : first + BATCH_ROWS] - low, strict=True)
        for start, end in bounds:
            yield _event(columns, int(start), int(end), int(occurrence[low + start]))


def items(chunks: Iterable[pa.Table]) -> dict[str, Item]:
    """An item event for each item in ordered chunks that ascend by time: category and time of its first event, its text as title."""
    found: dict[str, tuple[int, str, str]] = {}
    wanted = [("ts", "first"), ("category", "first"), ("text", "max")]
    for chunk in chunks:
        rows = chunk.select(["kind", "item", "ts", "category", "text"]).filter(pc.field("kind") != SEARCH)
        for row in rows.group_by("item", use_threads=False).aggregate(wanted).to_pylist():
            ts, category, title = found.get(row["item"], (row["ts_first"], row["category_first"], ""))
            found[row["item"]] = (ts, category, max(title, row["text_max"][:LONGEST_TEXT]))
    return {
        item: Item(item_id=item, category_id=category, title=title, ts=ts, inferred=True) for item, (ts, category, title) in found.items()
    }


def _columns(chunk: pa.Table) -> list[str]:
    return [name for name in _ORDER_OF if name in chunk.column_names]


def _group(chunk: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """The rows that begin an event (E,), and for each row (rows,) the number of identical rows before it; in an order, its line number."""
    length = len(chunk)
    same = np.ones(max(length - 1, 0), bool)
    same_basket = same
    for name in _columns(chunk):
        column = chunk[name].combine_chunks()
        same = same & pc.equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
        if name in _BASKET:
            same_basket = same
    orders = chunk["kind"].to_numpy() == ORDER
    in_basket = _run_positions(same_basket & orders[1:], length)
    starts = np.flatnonzero(~orders | (in_basket % MAX_ORDER_LINES == 0))
    return starts, np.where(orders, in_basket // MAX_ORDER_LINES, _run_positions(same, length))


def _run_positions(same: np.ndarray, length: int) -> np.ndarray:
    """The position of each row in its run; `same` (length - 1,) is true for rows that continue the run of the previous row."""
    index = np.arange(length)
    begins = np.ones(length, bool)
    begins[1:] = ~same
    return index - np.maximum.accumulate(np.where(begins, index, 0))


def _event(columns: dict[str, list[Any]], start: int, end: int, nth: int) -> Event:
    """The event in rows from `start` to `end`; only an order has several rows."""
    ts, user, kind, item, category, text = (columns[name][start] for name in ("ts", "user", "kind", "item", "category", "text"))
    wide = "order" in columns
    if kind == ORDER:
        return _order(columns, start, end, nth)
    query, session = (columns["query"][start], columns["session"][start]) if wide else ("", "")
    position = columns["position"][start] if wide else NO_POSITION
    said = [f"{name}={value}" for name, value in (("query", query), ("session", session)) if value]
    if kind == SEARCH:
        identity = _identity(user, str(ts), "search", category, text, *said, str(nth))
        query_id = query or identity
        return Query(
            event_id=identity, user_id=user, query_id=query_id, text=text, ts=ts, category_id=category or None, session_id=session or None
        )
    if position != NO_POSITION:
        said.append(f"position={position}")
    name = _CLICK_KINDS[kind]
    return Click(
        event_id=_identity(user, str(ts), name, item, category, text, *said, str(nth)),
        user_id=user,
        item_id=item,
        category_id=category,
        ts=ts,
        kind=name,  # type: ignore[arg-type]
        query_id=query or None,
        session_id=session or None,
        position=None if position == NO_POSITION else position,
    )


def _order(columns: dict[str, list[Any]], start: int, end: int, part: int) -> Order:
    pairs = zip(columns["item"][start:end], columns["category"][start:end], strict=True)
    ts, user = columns["ts"][start], columns["user"][start]
    if "order" not in columns:
        lines = [OrderLine(item_id=item, category_id=category) for item, category in pairs]
        identity = _identity(user, str(ts), "order", *_content(lines), str(part))
        return Order(event_id=identity, order_id=identity, user_id=user, ts=ts, lines=lines)
    amounts = zip(columns["quantity"][start:end], columns["price"][start:end], strict=True)
    lines = [
        OrderLine(item_id=item, category_id=category, quantity=quantity, price=price)
        for (item, category), (quantity, price) in zip(pairs, amounts, strict=True)
    ]
    named = columns["order"][start]
    said = [f"order={named}"] if named else []
    said += [f"{n}:{line.quantity}x{line.price!r}" for n, line in enumerate(lines) if line.quantity != 1 or line.price]
    identity = _identity(user, str(ts), "order", *_content(lines), *said, str(part))
    return Order(event_id=identity, order_id=named or identity, user_id=user, ts=ts, lines=lines)


def _content(lines: list[OrderLine]) -> Iterator[str]:
    return (field for line in lines for field in (line.item_id, line.category_id))


def _identity(*parts: str) -> str:
    return blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()

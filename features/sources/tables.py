"""Tables of rows `ts, user, kind, item, category, text`: parquet files, and Taobao's UserBehavior.csv.

Ids may be of any type, `ts` a time stamp (UTC) or milliseconds. A missing category becomes `unknown`; a row without
user, time, known kind, its item (or, for a search, its text) is refused.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from features.events import MAX_ORDER_LINES, Click, Event, Item, Order, OrderLine, Query, Reason, Refusal
from features.sources.formats import BadSource, Report

BATCH_ROWS = 65_536
BLOCK_BYTES = 4 << 20
UNKNOWN_CATEGORY = "unknown"
_SEARCH, _ORDER = 0, 4
_NAMES = (
    ("search", "query"),
    ("click", "pv", "view"),
    ("cart", "addtocart"),
    ("fav", "favourite", "favorite"),
    ("order", "buy", "purchase", "transaction"),
)
_KINDS = {name: code for code, names in enumerate(_NAMES) for name in names}
_CLICK_KINDS = {1: "click", 2: "cart", 3: "favourite"}
_COLUMNS = ("ts", "user", "kind", "item", "category", "text")
_SORTED_BY = ("ts", "user", "kind", "item", "category", "text")


def scan_parquet(path: Path, report: Report) -> Iterator[pa.Table]:
    """The rows of a parquet file, normalised, in file order. Raises BadSource where a column is missing."""
    with pyarrow.parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if missing := [name for name in _COLUMNS[:-1] if name not in names]:
            raise BadSource(f"{path} has no column {', '.join(missing)}: events need ts, user, kind, item, category and may have text")
        first = 1
        for batch in file.iter_batches(BATCH_ROWS, columns=[name for name in _COLUMNS if name in names]):
            rows = np.arange(first, first + len(batch))
            yield _normalise(rows, {name: batch[name] for name in batch.schema.names}, report)
            first += len(batch)


def scan_csv(path: Path, report: Report) -> Iterator[pa.Table]:
    """The lines of UserBehavior.csv (user, item, category, pv|cart|fav|buy, unix seconds; no header), in file order."""
    first = 1
    with pa.input_stream(str(path), compression="detect") as stream:
        rest = b""
        while block := stream.read(BLOCK_BYTES):
            head, newline, tail = (rest + block).rpartition(b"\n")
            if newline:
                yield from _csv_block(head + newline, first, report)
                first += head.count(b"\n") + 1
            rest = tail
        if rest:
            yield from _csv_block(rest, first, report)


def _csv_block(block: bytes, first: int, report: Report) -> Iterator[pa.Table]:
    """Whole lines; those that do not parse as a block are gone through one by one, so that each is reported by itself."""
    names = ("user", "item", "category", "kind", "ts")
    lines = block.count(b"\n") + (not block.endswith(b"\n"))
    rows = np.arange(first, first + lines)
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(block),
            pyarrow.csv.ReadOptions(use_threads=False, column_names=names),
            pyarrow.csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            pyarrow.csv.ConvertOptions(column_types={name: pa.string() for name in names}, strings_can_be_null=True, null_values=[""]),
        )
    except pa.ArrowInvalid:
        table = None
    if table is None or len(table) != lines:
        good = _split(block, first, report)
        rows = np.array([row for row, _ in good], np.int64)
        table = pa.table({name: pa.array([fields[n] for _, fields in good], pa.string()) for n, name in enumerate(names)})
    columns = {name: table[name].combine_chunks() for name in names}
    digits = pc.match_substring_regex(columns["ts"], r"^\d{1,12}$")
    seconds = pc.cast(pc.if_else(digits, columns["ts"], None), pa.int64())
    yield _normalise(rows, columns | {"ts": pc.multiply(seconds, 1000)}, report)


def _split(block: bytes, first: int, report: Report) -> list[tuple[int, list[str]]]:
    good = []
    for row, line in enumerate(block.removesuffix(b"\n").split(b"\n"), first):
        try:
            fields = line.decode().rstrip("\r").split(",")
        except UnicodeDecodeError as error:
            report(Refusal(row, Reason.NOT_UTF8, str(error)))
            continue
        if len(fields) == 5:
            good.append((row, fields))
        else:
            report(Refusal(row, Reason.WRONG_SHAPE if line else Reason.EMPTY, f"{len(fields)} fields instead of 5"))
    return good


def _normalise(rows: np.ndarray, columns: dict[str, pa.Array], report: Report) -> pa.Table:
    """The good rows under one schema: row, ts (ms) int64; kind int8; user, item, category, text string, none null."""
    ts = columns["ts"]
    if pa.types.is_timestamp(ts.type):
        ts = pc.cast(ts, pa.timestamp("ms", ts.type.tz), safe=False)
    ts = pc.cast(ts, pa.int64(), safe=False)
    named = pc.index_in(pc.utf8_lower(_strings(columns["kind"])), pa.array(list(_KINDS)))
    kind = pc.take(pa.array(_KINDS.values(), pa.int8()), named)
    user, item, category = (_strings(columns[name]) for name in ("user", "item", "category"))
    text = _strings(columns["text"]) if "text" in columns else pa.nulls(len(rows), pa.string())
    searched = pc.fill_null(pc.equal(kind, _SEARCH), False)
    checks = (
        ("ts is missing or out of range", _holds(pc.and_(pc.greater_equal(ts, 0), pc.less_equal(ts, 2**52)))),
        ("kind is none of " + ", ".join(_KINDS), pc.is_valid(kind)),
        ("user is missing or longer than 128", _between(user, 1, 128)),
        ("item is missing or longer than 128", pc.or_(searched, _between(item, 1, 128))),
        ("category is longer than 128", _between(pc.fill_null(category, ""), 0, 128)),
        ("a search without text, or of more than 512", pc.or_(pc.invert(searched), _between(text, 1, 512))),
    )
    good = np.ones(len(rows), bool)
    for sentence, holds in checks:
        passed = holds.to_numpy(zero_copy_only=False)
        for row in rows[good & ~passed].tolist():
            report(Refusal(row, Reason.WRONG_SHAPE, sentence))
        good &= passed
    category = pc.if_else(_between(category, 1, 128), category, pc.if_else(searched, "", UNKNOWN_CATEGORY))
    arrays = (pa.array(rows), ts, kind, user, pc.if_else(searched, "", item), category, pc.fill_null(text, ""))
    return pa.table(dict(zip(("row", "ts", "kind", "user", "item", "category", "text"), arrays, strict=True))).filter(pa.array(good))


def _strings(column: pa.Array) -> pa.Array:
    return pc.cast(column, pa.string())


def _holds(condition: pa.Array) -> pa.Array:
    return pc.fill_null(condition, False)


def _between(column: pa.Array, shortest: int, longest: int) -> pa.Array:
    length = pc.utf8_length(column)
    return _holds(pc.and_(pc.greater_equal(length, shortest), pc.less_equal(length, longest)))


class _Grouped(NamedTuple):
    """A chunk in its one order. `starts` are rows that begin an event; `occurrence` counts what is identical, from 0."""

    table: pa.Table
    starts: np.ndarray  # (E,) int64
    occurrence: np.ndarray  # (rows,) int64: identical rows before this one; in an order the number of its part


def _group(chunk: pa.Table) -> _Grouped:
    table = chunk.sort_by([(name, "ascending") for name in _SORTED_BY])
    length = len(table)
    same = np.ones(max(length - 1, 0), bool)
    same_basket = same
    for name in _SORTED_BY:
        column = table[name].combine_chunks()
        same = same & pc.equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
        if name == "kind":
            same_basket = same & (column.to_numpy(zero_copy_only=False)[1:] == _ORDER)
    in_basket = _run_positions(same_basket, length)
    orders = table["kind"].to_numpy() == _ORDER
    starts = np.flatnonzero(~orders | (in_basket % MAX_ORDER_LINES == 0))
    return _Grouped(table, starts, np.where(orders, in_basket // MAX_ORDER_LINES, _run_positions(same, length)))


def _run_positions(same: np.ndarray, length: int) -> np.ndarray:
    """The position of each row in its run, where `same` (length - 1,) says that a row goes on the run of the one before."""
    index = np.arange(length)
    begins = np.ones(length, bool)
    begins[1:] = ~same
    return index - np.maximum.accumulate(np.where(begins, index, 0))


def count(chunk: pa.Table) -> int:
    """How many events the rows of a chunk make."""
    return len(_group(chunk).starts)


def events(chunk: pa.Table) -> Iterator[Event]:
    """The events of a chunk of normalised rows, ascending by (ts, user, kind, item, category, text)."""
    table, starts, occurrence = _group(chunk)
    ends = np.append(starts[1:], len(table))
    for first in range(0, len(starts), BATCH_ROWS):
        low = int(starts[first])
        high = int(ends[min(first + BATCH_ROWS, len(ends)) - 1])
        part = table.slice(low, high - low)
        columns = [part[name].to_pylist() for name in ("ts", "kind", "user", "item", "category", "text")]
        bounds = zip(starts[first : first + BATCH_ROWS] - low, ends[first : first + BATCH_ROWS] - low, strict=True)
        for start, end in bounds:
            ts, kind, user, item, category, text = (column[start] for column in columns)
            nth = int(occurrence[low + start])
            if kind == _ORDER:
                lines = [OrderLine(item_id=i, category_id=c) for i, c in zip(columns[3][start:end], columns[4][start:end], strict=True)]
                yield _order(user, ts, lines, nth)
            elif kind == _SEARCH:
                identity = _identity(user, str(ts), "search", category, text, str(nth))
                yield Query(event_id=identity, user_id=user, query_id=identity, text=text, ts=ts, category_id=category or None)
            else:
                name = _CLICK_KINDS[kind]
                identity = _identity(user, str(ts), name, item, category, text, str(nth))
                yield Click(event_id=identity, user_id=user, item_id=item, category_id=category, ts=ts, kind=name)  # type: ignore[arg-type]


def _order(user: str, ts: int, lines: list[OrderLine], part: int) -> Order:
    content = (field for line in lines for field in (line.item_id, line.category_id))
    identity = _identity(user, str(ts), "order", *content, str(part))
    return Order(event_id=identity, order_id=identity, user_id=user, ts=ts, lines=lines)


def _identity(*parts: str) -> str:
    return blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()


def items(chunks: Iterable[pa.Table]) -> dict[str, Item]:
    """An item event for each item in chunks that ascend by time: category and time of its first event, text as its title."""
    found: dict[str, tuple[int, str, str]] = {}
    for chunk in chunks:
        rows = chunk.filter(pc.field("kind") != _SEARCH).sort_by([(name, "ascending") for name in _SORTED_BY])
        wanted = [("ts", "first"), ("category", "first"), ("text", "max")]
        for row in rows.group_by("item", use_threads=False).aggregate(wanted).to_pylist():
            ts, category, title = found.get(row["item"], (row["ts_first"], row["category_first"], ""))
            found[row["item"]] = (ts, category, max(title, row["text_max"][:512]))
    return {
        item: Item(item_id=item, category_id=category, title=title, ts=ts, inferred=True) for item, (ts, category, title) in found.items()
    }

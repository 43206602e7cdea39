"""Files of events: parquet tables, Taobao's UserBehavior.csv and JSON lines, read into the events of features.events.

What comes out depends on the set of rows in the file, never on their order: events ascend by time, rows of one user and
time stamp that say `order` are one basket, and an event id is made from a row's content and its occurrence (the n-th
identical row gets n). So a file sent twice, or shuffled, gives the same events under the same ids. Events of JSON lines
keep the ids they have.

Memory is bounded: a file of more than `chunk_rows` rows is cut by time into chunks, which are spooled to the folder for
temporary files (up to twice the size of the text) and taken one after the other. A row that is no event is reported
with its position (counted from 1) and the reason; nothing is skipped silently.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from features.event_time import MINUTE_MS
from features.events import Event, Item, Order, Query, Refusal, Topic, encode
from features.sources import lines, tables
from features.sources.catalogue import items_of, read_products
from features.sources.formats import BadSource, Format, Report, detect

__all__ = ["CHUNK_ROWS", "BadSource", "count", "described_and_told", "items_of", "read", "read_items", "topic_of", "write"]

CHUNK_ROWS = 1_000_000
_HOUR_MS = 60 * MINUTE_MS
_READERS = {Format.PARQUET: tables, Format.TAOBAO_CSV: tables, Format.JSON_LINES: lines}


def read(path: Path | str, report: Report | None = None, *, chunk_rows: int = CHUNK_ROWS) -> Iterator[Event]:
    """The events of a file, ascending by time and the same whatever the order of its rows.

    `report` is told of each row that is no event; without it the first such row raises BadSource. A file of no known
    format raises BadSource at once.
    """
    path = Path(path)
    format_ = detect(path)
    reader = _READERS[format_]
    return (event for chunk in _chunks(path, format_, report or _refuse(path), chunk_rows) for event in reader.events(chunk))


def count(path: Path | str) -> int:
    """How many events `read` gives; rows that are no event are left out."""
    path = Path(path)
    format_ = detect(path)
    return sum(_READERS[format_].count(chunk) for chunk in _chunks(path, format_, _ignore, CHUNK_ROWS))


def read_items(path: Path | str, products: Path | str | None = None) -> list[Item]:
    """An item event for each item that events of `path` touch, to be sent before them; ascending by item id.

    `products` is a table of products (features.sources.catalogue), whose items come first and whole, as of the file's
    first event. Other items get the category and, where the table has a text for their clicks, the title of the file;
    `ts` is that of the first event on them. Items that the file itself describes (JSON lines) are left out.
    """
    path = Path(path)
    format_ = detect(path)
    chunks = _chunks(path, format_, _ignore, CHUNK_ROWS)
    if format_ is Format.JSON_LINES:
        found = {item.item_id: item for item in items_of(event for chunk in chunks for event in lines.events(chunk))}
    else:
        found = tables.items(chunks)
    if products is not None and found:
        first_ms = min(item.ts for item in found.values())
        found.update({item.item_id: item for item in read_products(Path(products), first_ms)})
    return [found[item_id] for item_id in sorted(found)]


def described_and_told(path: Path | str, described: Iterable[Item], products: Path | str | None = None) -> tuple[list[Item], list[Item]]:
    """The items that the file describes itself (`described`) and those of a table of `products`; and those that only its events tell of."""
    told = read_items(path)
    there = list(described)
    if products is not None and told:
        there += read_products(Path(products), min(item.ts for item in told))
    ids = {item.item_id for item in there}
    return there, [item for item in told if item.item_id not in ids]


def write(path: Path | str, events: Iterable[Event]) -> int:
    """Write events as JSON lines that `read` takes; returns how many."""
    written = 0
    with Path(path).open("wb") as file:
        for event in events:
            file.write(encode(event) + b"\n")
            written += 1
    return written


def topic_of(event: Event) -> Topic:
    """The topic that an event belongs on."""
    if isinstance(event, Item):
        return Topic.ITEMS
    if isinstance(event, Query):
        return Topic.QUERIES
    return Topic.ORDERS if isinstance(event, Order) else Topic.CLICKS


def _scan(path: Path, format_: Format, report: Report) -> Iterator[pa.Table]:
    """All batches of a file in file order, each with the columns `row` and `ts` (int64) and those of its format."""
    if format_ is Format.PARQUET:
        return tables.scan_parquet(path, report)
    return tables.scan_csv(path, report) if format_ is Format.TAOBAO_CSV else lines.scan(path, report)


def _chunks(path: Path, format_: Format, report: Report, chunk_rows: int) -> Iterator[pa.Table]:
    """The file cut by time into tables of about `chunk_rows` rows (never inside an hour), in order of time."""
    kept: list[pa.Table] = []
    hours: Counter[int] = Counter()
    for batch in _scan(path, format_, report):
        for found in pc.value_counts(pc.divide(batch["ts"], _HOUR_MS)).to_pylist():
            hours[found["values"]] += found["counts"]
        kept.append(batch)
        if hours.total() > chunk_rows:
            kept.clear()
    if hours.total() <= chunk_rows:
        if kept:
            yield pa.concat_tables(kept)
        return
    yield from _spool(_scan(path, format_, _ignore), list(_starts(hours, chunk_rows)))


def _spool(batches: Iterable[pa.Table], starts: list[int]) -> Iterator[pa.Table]:
    """The rows of batches as one table for each range of hours, which goes from its start to the next one's."""
    edges = np.array(starts[1:], np.int64) * _HOUR_MS
    with TemporaryDirectory(prefix="everlong-") as folder:
        paths = [Path(folder, f"{number}.arrow") for number in range(len(starts))]
        with ExitStack() as stack:
            writers: dict[int, pa.RecordBatchFileWriter] = {}
            for batch in batches:
                ranges = np.searchsorted(edges, batch["ts"].to_numpy(), side="right")
                for number in np.unique(ranges).tolist():
                    if number not in writers:
                        writers[number] = stack.enter_context(pa.ipc.new_file(str(paths[number]), batch.schema))
                    writers[number].write_table(batch.filter(pa.array(ranges == number)))
        for path in paths:
            with pa.OSFile(str(path)) as file:
                chunk = pa.ipc.open_file(file).read_all()
            path.unlink()
            yield chunk


def _starts(hours: Counter[int], chunk_rows: int) -> Iterator[int]:
    """First hours of ranges that hold at most `chunk_rows` rows each, or a single hour."""
    held = chunk_rows
    for hour in sorted(hours):
        held += hours[hour]
        if held > chunk_rows:
            yield hour
            held = hours[hour]


def _ignore(refusal: Refusal) -> None:
    """For scans that report nothing, because another one does."""


def _refuse(path: Path) -> Callable[[Refusal], None]:
    def raise_(refusal: Refusal) -> None:
        raise BadSource(f"{path}, row {refusal.position}: {refusal.detail} ({refusal.reason})")

    return raise_

"""JSON lines of our own events. A line's topic is its field `topic`, else it is told by what only one kind has."""

import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import pyarrow as pa

from features.event_time import TimeRules
from features.events import Event, Reason, Refusal, Topic, decode, parse
from features.sources.formats import Report

BATCH_LINES = 65_536
_ORDER = (Topic.ITEMS, Topic.QUERIES, Topic.CLICKS, Topic.ORDERS)  # of events at the same time: causes first
_ANY_TIME = (2**53, TimeRules(max_future_ms=0, retention_ms=2**53))
_SCHEMA = pa.schema([("row", pa.int64()), ("ts", pa.int64()), ("topic", pa.int8()), ("line", pa.binary())])


class _Kind(msgspec.Struct):
    topic: str | None = None
    user_id: msgspec.Raw = msgspec.Raw()
    lines: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()


_kind_decoder = msgspec.json.Decoder(_Kind)


def scan(path: Path, report: Report) -> Iterator[pa.Table]:
    """The lines that are events, in file order: row, ts (ms), topic, line. Lines of white space count but say nothing."""
    with pa.input_stream(str(path), compression="detect") as stream:
        numbered = enumerate(io.BufferedReader(stream), 1)
        while batch := list(islice(numbered, BATCH_LINES)):
            rows = [found for row, line in batch if line.strip() and (found := _parse(row, line.strip(), report)) is not None]
            columns = zip(*rows, strict=True) if rows else [[]] * 4
            yield pa.table([pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA)


def _parse(row: int, line: bytes, report: Report) -> tuple[int, int, int, bytes] | None:
    try:
        kind = _kind_decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        kind = _Kind()
    if kind.topic is None:
        topic = _guess(kind)
    elif kind.topic in _ORDER:
        topic = Topic(kind.topic)
    else:
        report(Refusal(row, Reason.WRONG_SHAPE, f"topic {kind.topic!r} is none of {', '.join(_ORDER)}"))
        return None
    good, bad = decode(topic, [line], *_ANY_TIME)
    if bad:
        report(bad[0]._replace(position=row))
        return None
    return row, good[0][1].ts, _ORDER.index(topic), line


def _guess(kind: _Kind) -> Topic:
    if not len(kind.user_id):
        return Topic.ITEMS
    if len(kind.lines):
        return Topic.ORDERS
    return Topic.QUERIES if len(kind.text) else Topic.CLICKS


def count(chunk: pa.Table) -> int:
    """How many events a chunk holds."""
    return len(chunk)


def events(chunk: pa.Table) -> Iterator[Event]:
    """The events of a chunk, ascending by (ts, topic, bytes of the line)."""
    ordered = chunk.sort_by([("ts", "ascending"), ("topic", "ascending"), ("line", "ascending")])
    for topics, lines in zip(ordered["topic"].chunks, ordered["line"].chunks, strict=True):
        for topic, line in zip(topics.to_pylist(), lines.to_pylist(), strict=True):
            yield parse(_ORDER[topic], line)

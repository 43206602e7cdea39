"""Events in Everlong's format (docs/events.md). A value's topic is its field `topic`, or follows from fields that only one kind has."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import pyarrow as pa

from features.event_time import TimeRules
from features.events import Event, Topic, decode, parse
from features.sources.formats import Detected
from features.sources.objects import Numbered, values
from features.sources.refusals import RefusalReason, Refusals

BATCH_VALUES = 65_536
_ORDER = (Topic.ITEMS, Topic.QUERIES, Topic.CLICKS, Topic.ORDERS)  # order of events at the same time: causes first
_ANY_TIME = (2**53, TimeRules(max_future_ms=0, retention_ms=2**53))
_SCHEMA = pa.schema([("row", pa.int64()), ("ts", pa.int64()), ("topic", pa.int8()), ("line", pa.binary())])
_OTHER_UNITS = (("seconds", 1), ("microseconds", 1_000_000), ("nanoseconds", 1_000_000_000))
_REASONS = frozenset(reason.value for reason in RefusalReason)
_PLAUSIBLE_S = (631_152_000, 4_102_444_800)  # 1990 to 2100


class _Kind(msgspec.Struct):
    topic: str | None = None
    user_id: msgspec.Raw = msgspec.Raw()
    lines: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()


class _Time(msgspec.Struct):
    ts: int = 0


_kind_decoder = msgspec.json.Decoder(_Kind)
_time_decoder = msgspec.json.Decoder(_Time)


def are_ours(head: list[bytes]) -> bool:
    """Whether the values are events in Everlong's format: one of them names a topic, or has exactly the fields of an event."""
    return any(_names_topic(value) or decode(_topic(value) or Topic.ITEMS, [value], *_ANY_TIME).good for value in head)


def scan(path: Path, detected: Detected, refusals: Refusals, now_ms: int | None, rules: TimeRules) -> Iterator[pa.Table]:
    """The valid events, in the order of the file: row, ts (ms), topic, line. Without `now_ms` any time is accepted."""
    moment = _ANY_TIME if now_ms is None else (now_ms, rules)
    numbered = values(path, detected)
    while batch := list(islice(numbered, BATCH_VALUES)):
        rows = [found for value in batch if (found := _parse(value, refusals, *moment)) is not None]
        columns = zip(*rows, strict=True) if rows else [[]] * 4
        yield pa.table([pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA)


def _parse(numbered: Numbered, refusals: Refusals, now_ms: int, rules: TimeRules) -> tuple[int, int, int, bytes] | None:
    row, line = numbered
    topic = _topic(line)
    if topic is None:
        refusals.add([row], RefusalReason.WRONG_SHAPE, f"its topic is none of {', '.join(_ORDER)}")
        return None
    good, bad = decode(topic, [line], now_ms, rules)
    if bad:
        reason = RefusalReason(bad[0].reason.value) if bad[0].reason.value in _REASONS else RefusalReason.WRONG_SHAPE
        hint = _unit(line) if reason in (RefusalReason.FUTURE, RefusalReason.BEYOND_RETENTION, RefusalReason.WRONG_SHAPE) else ""
        refusals.add([row], reason, bad[0].detail + hint)
        return None
    return row, good[0][1].ts, _ORDER.index(topic), line


def _names_topic(line: bytes) -> bool:
    try:
        return _kind_decoder.decode(line).topic in set(_ORDER)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def _topic(line: bytes) -> Topic | None:
    """The topic of a value; None if it names an unknown one."""
    try:
        kind = _kind_decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Topic.ITEMS
    if kind.topic is not None:
        return Topic(kind.topic) if kind.topic in set(_ORDER) else None
    if not len(kind.user_id):
        return Topic.ITEMS
    if len(kind.lines):
        return Topic.ORDERS
    return Topic.QUERIES if len(kind.text) else Topic.CLICKS


def _unit(line: bytes) -> str:
    """The probable unit of a time stamp that is not in milliseconds."""
    try:
        ts = _time_decoder.decode(line).ts
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    for name, per_second in _OTHER_UNITS:
        if _PLAUSIBLE_S[0] * per_second <= ts < _PLAUSIBLE_S[1] * per_second:
            return f"; it looks like {name}, but events use milliseconds"
    return ""


def in_order(chunk: pa.Table) -> pa.Table:
    """The values of a chunk, ascending by (ts, topic, bytes)."""
    return chunk.sort_by([("ts", "ascending"), ("topic", "ascending"), ("line", "ascending")])


def count(chunk: pa.Table) -> int:
    """The number of events in a chunk."""
    return len(chunk)


def events(chunk: pa.Table) -> Iterator[Event]:
    """The events of an ordered chunk."""
    for topics, lines in zip(chunk["topic"].chunks, chunk["line"].chunks, strict=True):
        for topic, line in zip(topics.to_pylist(), lines.to_pylist(), strict=True):
            yield parse(_ORDER[topic], line)

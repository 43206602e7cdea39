"""Feast's layout of the online store, byte for byte: entity keys, hash fields, values. Feast is not imported: this is the hot path.

Tests compare each function with Feast's own classes. Entity keys have serialisation version 3; every entity is a string.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from struct import pack
from typing import NamedTuple

import mmh3

from features.errors import LayoutError
from features.store import LogPosition, Stored
from features.table import APPLIED, PACKED, VIEWS, RowView

_STRING = 2  # feast ValueType.STRING
_BYTES_TAG, _STRING_TAG = b"\x0a", b"\x12"  # fields bytes_val and string_val of feast's Value
_SECONDS_TAG, _NANOS_TAG = b"\x08", b"\x10"  # fields of google.protobuf.Timestamp
_VERSION = re.compile(rb"v:(\d{1,9}):(\d{1,19}):(\d{1,19}):(\d{1,19})\Z")  # epochs up to MOST_EPOCH
_NOT_PACKED = b"\xc1"  # never used by MessagePack, so a row cannot begin with it
_MOST_MS = 2**52


class Fields(NamedTuple):
    """Fields of a view in a Redis hash: log position, packed row, event time."""

    applied: bytes
    packed: bytes
    ts: bytes


class _Shape(NamedTuple):
    prefix: bytes
    order: tuple[int, ...]


def _shape(view: RowView) -> _Shape:
    order = tuple(sorted(range(len(view.entities)), key=lambda at: view.entities[at]))
    names = [view.entities[at].encode() for at in order]
    prefix = pack("<I", len(names)) + b"".join(pack("<II", _STRING, len(name)) + name for name in names)
    return _Shape(prefix, order)


def stored_name(view: str, part: str) -> str:
    """The Feast feature that holds `part` (features.table PACKED or APPLIED) of a view, such as `user_row`.

    The view is part of the name because Feast puts the features of all views of a request into one table under their short names.
    """
    return f"{view}_{part}"


def _fields(view: RowView) -> Fields:
    hashed = [mmh3.hash(f"{view.name}:{stored_name(view.name, part)}", signed=False) for part in (APPLIED, PACKED)]
    return Fields(pack("<I", hashed[0]), pack("<I", hashed[1]), b"_ts:" + view.name.encode())


_SHAPES = {view.name: _shape(view) for view in VIEWS}
HASH_FIELDS = {view.name: _fields(view) for view in VIEWS}


def entity_key(view: str, entities: Sequence[str]) -> bytes:
    """Feast's serialised entity key of a row.

    Raises:
        ValueError: the number of entity values is not that of the view.
    """
    prefix, order = _SHAPES[view]
    if len(entities) != len(order):
        raise ValueError(f"view {view} has {len(order)} entities, got {len(entities)} values")
    parts = [prefix]
    for at in order:
        value = entities[at].encode()
        parts += (pack("<II", _STRING, len(value)), value)
    return b"".join(parts)


def bytes_value(payload: bytes) -> bytes:
    """Feast's Value(bytes_val=payload), serialised."""
    return _BYTES_TAG + _varint(len(payload)) + payload


def string_value(text: str) -> bytes:
    """Feast's Value(string_val=text), serialised."""
    payload = text.encode()
    return _STRING_TAG + _varint(len(payload)) + payload


def payload(value: bytes) -> bytes:
    """The bytes (or UTF-8) inside a serialised Value.

    Raises:
        LayoutError: it has another type, or is truncated.
    """
    length, start = _read_varint(value, 1)
    if value[:1] not in (_BYTES_TAG, _STRING_TAG) or len(value) != start + length:
        raise LayoutError(f"{len(value)} bytes of the online store are no Feast value of type bytes or string")
    return value[start:]


def position_text(position: LogPosition) -> str:
    """The stored form of a log position, `v:EPOCH:CLICKS:QUERIES:ORDERS`.

    Raises:
        ValueError: a number is negative.
    """
    if min(position) < 0:
        raise ValueError(f"a log position has no negative numbers: {position}")
    return "v:{}:{}:{}:{}".format(*position)


@lru_cache(maxsize=256)
def position_value(position: LogPosition) -> bytes:
    """The log position as a serialised Value. Cached, since the rows of a batch share few positions.

    Raises:
        ValueError: a number is negative.
    """
    return string_value(position_text(position))


def position_of(applied: bytes | None) -> LogPosition:
    """The log position in a serialised Value. An invalid one, or one with an epoch beyond MOST_EPOCH, is older than any other."""
    match = _VERSION.search(applied or b"")
    position = LogPosition(*map(int, match.groups())) if match else LogPosition()
    return position if max(position) < 2**63 else LogPosition()


def timestamp(ts_ms: int) -> bytes:
    """google.protobuf.Timestamp of milliseconds since the epoch (0 or later), serialised."""
    seconds, milliseconds = divmod(ts_ms, 1000)
    encoded = _SECONDS_TAG + _varint(seconds) if seconds else b""
    return encoded + (_NANOS_TAG + _varint(milliseconds * 1_000_000) if milliseconds else b"")


def milliseconds(encoded: bytes | None) -> int:
    """Milliseconds since the epoch in a serialised google.protobuf.Timestamp; 0 if absent. Arbitrary bytes give 0 to 2^52."""
    numbers, at, data = {}, 0, (encoded or b"")[:_LONGEST_TIMESTAMP]
    while at < len(data):
        tag = data[at : at + 1]
        numbers[tag], at = _read_varint(data, at + 1)
    return min(numbers.get(_SECONDS_TAG, 0) * 1000 + numbers.get(_NANOS_TAG, 0) // 1_000_000, _MOST_MS)


_LONGEST_TIMESTAMP = 32  # bytes


def stored_of(applied: bytes | None, packed: bytes | None, ts_ms: int | None) -> Stored | None:
    """The row in its two serialised values; None if both are missing.

    Never raises: if the packed value is missing or invalid, `packed` is a marker that no codec reads, followed by the value.
    """
    if packed is None and applied is None:
        return None
    try:
        row = payload(packed or b"")
    except LayoutError:
        row = _NOT_PACKED + (packed or b"")
    return Stored(row, position_of(applied), min(max(ts_ms or 0, 0), _MOST_MS))


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(number, position after it); a truncated one counts as longer than any data."""
    number = shift = 0
    for position in range(at, len(data)):
        number |= (data[position] & 0x7F) << shift
        if data[position] < 0x80:
            return number, position + 1
        shift += 7
    return number, len(data) + 1

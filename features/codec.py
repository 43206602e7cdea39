"""Rows to bytes and back: one versioned binary layout, MessagePack arrays in the order of the fields of features.rows."""

from typing import Any, TypeVar

import msgspec

from features.errors import OtherLayoutError, UnreadableRowError
from features.rows import CategoryRow, UserRow
from features.soundness import fault_of

Row = TypeVar("Row", bound=msgspec.Struct)
LAYOUT = 1
_LAYOUT = bytes([LAYOUT])

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type, msgspec.msgpack.Decoder[Any]] = {}


def pack(row: msgspec.Struct) -> bytes:
    """The row as bytes; equal rows give equal bytes."""
    return _encoder.encode(row)


def unpack(kind: type[Row], packed: bytes | None) -> Row:
    """The row in the bytes, checked (features.soundness); None gives the empty row.

    Raises:
        OtherLayoutError: another version of Everlong wrote it.
        UnreadableRowError: it is damaged. Both are LayoutErrors; no other exception is raised, whatever the bytes.
    """
    if packed is None:
        return kind()
    if packed[1:2] != _LAYOUT:
        _refuse_other(kind, packed)
    decoder = _decoders.get(kind) or _decoders.setdefault(kind, msgspec.msgpack.Decoder(kind))
    try:
        row: Any = decoder.decode(packed)
    except Exception as error:  # msgspec, UTF-8, nesting depth: arbitrary bytes can raise anything
        raise UnreadableRowError(f"{len(packed)} bytes are no {kind.__name__}: {error}") from error
    if row.version != LAYOUT:
        raise UnreadableRowError(f"a {kind.__name__} of layout {row.version}, which there is not")
    if (fault := fault_of(row)) is not None:
        raise UnreadableRowError(f"a damaged {kind.__name__}: {fault}")
    checked: Row = row
    return checked


def _refuse_other(kind: type[msgspec.Struct], packed: bytes) -> None:
    """Refuse a row of another layout, at most one ahead. The layout is the array's first element, known before the rest is decoded."""
    if len(packed) > 1 and 0x90 <= packed[0] <= 0x9F and 1 <= packed[1] <= LAYOUT + 1:
        raise OtherLayoutError(f"a {kind.__name__} of layout {packed[1]}; this version reads {LAYOUT}", "upgrade Everlong on this machine")


__all__ = ["LAYOUT", "CategoryRow", "UserRow", "pack", "unpack"]

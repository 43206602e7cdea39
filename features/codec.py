"""Rows to bytes and back: one versioned binary layout, MessagePack arrays in the order of the fields of features.rows."""

from typing import TypeVar

import msgspec

from features.rows import CategoryRow, UserRow

Row = TypeVar("Row", bound=msgspec.Struct)
LAYOUT = 1

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type, msgspec.msgpack.Decoder] = {}


class LayoutError(ValueError):
    """Bytes that are no row of the asked kind, or of a layout that this version does not read."""


def pack(row: msgspec.Struct) -> bytes:
    """The row as bytes; equal rows give equal bytes."""
    return _encoder.encode(row)


def unpack(kind: type[Row], packed: bytes | None) -> Row:
    """The row of bytes; None is the empty row.

    Raises:
        LayoutError: the bytes are of another kind or of a newer layout.
    """
    if packed is None:
        return kind()
    decoder = _decoders.get(kind) or _decoders.setdefault(kind, msgspec.msgpack.Decoder(kind))
    try:
        row = decoder.decode(packed)
    except msgspec.MsgspecError as error:
        raise LayoutError(f"{len(packed)} bytes are no {kind.__name__}: {error}") from error
    if row.version != LAYOUT:
        raise LayoutError(f"a {kind.__name__} of layout {row.version}; this version reads {LAYOUT}: upgrade Everlong on this machine")
    return row


__all__ = ["LAYOUT", "CategoryRow", "LayoutError", "UserRow", "pack", "unpack"]

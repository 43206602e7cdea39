"""Records of unreadable rows: their bytes, the reason, and how the row was rebuilt."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Literal

import msgspec

MOST_ROWS = 10_000  # maximum that a store keeps; further rows are counted and logged by the worker that found them, but not stored

Rebuilt = Literal["complete", "partial", "none"]  # from the whole log, from the rest of it, or not at all: then the row starts empty


class Quarantined(msgspec.Struct, frozen=True):
    """A row that could not be read, found at `at_ms` (wall clock); `log_position` and `ts_ms` are its stored ones."""

    view: str
    entities: tuple[str, ...]
    reason: str
    at_ms: int
    rebuilt: Rebuilt
    log_position: tuple[int, int, int, int]
    ts_ms: int
    packed: bytes

    @property
    def id(self) -> str:
        """16 hex digits, equal for equal bytes of the same row, so that they are stored once."""
        parts = [part.encode() for part in (self.view, *self.entities)]
        return blake2b(msgspec.msgpack.encode([*parts, self.packed]), digest_size=8).hexdigest()


def encode(row: Quarantined) -> bytes:
    """The record in its stored form."""
    return msgspec.msgpack.encode(row)


def decode_all(records: Iterable[bytes]) -> list[Quarantined]:
    """The records in a store, oldest first; those that cannot be read are left out."""
    found = [row for record in records if (row := _decode(record)) is not None]
    return sorted(found, key=lambda row: (row.at_ms, row.view, row.entities))


def _decode(record: bytes) -> Quarantined | None:
    try:
        return _decoder.decode(record)
    except Exception:  # noqa: BLE001 - another program may have written anything
        return None


_decoder = msgspec.msgpack.Decoder(Quarantined)

"""Unreadable rows, kept as they were found: their bytes, why they could not be read, and what became of the row."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Literal

import msgspec

MOST_ROWS = 10_000  # that a store keeps; what comes beyond is counted and logged by whoever found it, but not kept

Rebuilt = Literal["complete", "partial", "none"]  # from the whole log, from what is left of it, or not: then the row begins again


class Quarantined(msgspec.Struct, frozen=True):
    """A row that could not be read; `at_ms` is the wall clock when it was found, `version` and `ts_ms` what it was stored under."""

    view: str
    entities: tuple[str, ...]
    reason: str
    at_ms: int
    rebuilt: Rebuilt
    version: tuple[int, int, int, int]
    ts_ms: int
    packed: bytes

    @property
    def id(self) -> str:
        """16 hex digits: the same bytes of the same row are kept once."""
        parts = [part.encode() for part in (self.view, *self.entities)]
        return blake2b(msgspec.msgpack.encode([*parts, self.packed]), digest_size=8).hexdigest()


def encode(row: Quarantined) -> bytes:
    """The record as a store keeps it."""
    return msgspec.msgpack.encode(row)


def decode_all(records: Iterable[bytes]) -> list[Quarantined]:
    """The records that a store keeps, oldest first; one that cannot be read is left out."""
    found = [row for record in records if (row := _decode(record)) is not None]
    return sorted(found, key=lambda row: (row.at_ms, row.view, row.entities))


def _decode(record: bytes) -> Quarantined | None:
    try:
        return _decoder.decode(record)
    except Exception:  # whatever another program wrote there
        return None


_decoder = msgspec.msgpack.Decoder(Quarantined)

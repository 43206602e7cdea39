"""The header `sent_ms` of a record: when it was sent (wall clock, ms), from which latencies are measured. One writer, one reader."""

from collections.abc import Sequence
from time import time

SENT_HEADER = "sent_ms"
AGAIN_HEADER: tuple[str, bytes] = ("again", b"1")  # of an item's state that a catalogue worker published again
LONGEST = 16  # digits; a header of thousands would be a number that int() refuses
LATEST_MS = 2**52


def sent_header(now_ms: int | None = None) -> tuple[str, bytes]:
    """The header that says when a record was sent (wall clock, ms), now if not given."""
    return SENT_HEADER, b"%d" % (int(time() * 1000) if now_ms is None else now_ms)


def sent_ms(headers: Sequence[tuple[str, bytes | None]] | None, default: int) -> int:
    """When a record was sent (wall clock, ms) by its headers, `default` where they do not say or not properly."""
    for name, value in headers or ():
        if name == SENT_HEADER and value is not None and value.isdigit() and len(value) < LONGEST:
            return int(value)
    return min(max(default, 0), LATEST_MS)  # a producer may have stamped its record with anything

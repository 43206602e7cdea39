"""The fold of a sequence: counts of events older than what a row keeps, in buckets of absolute time (TWIN V2, virtual items).

Buckets coarsen with age: a day, 7, 28, then 364 days. Widths nest and are aligned to the epoch, and how coarse a bucket
is depends only on its end and on the newest event of the row. So a fold is a sum, independent of the order of events.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Protocol

import msgspec

from features.event_time import DAY_MS
from features.events import Milliseconds

WIDTHS_MS = tuple(days * DAY_MS for days in (1, 7, 28, 364))
AGES_MS = tuple(days * DAY_MS for days in (7, 56, 728))  # a bucket is widened when it ended this long before the newest event


Count = Annotated[int, msgspec.Meta(ge=0, le=2**52)]


class Countable(Protocol):
    """The part of an event that a fold uses: its time (ms) and its kind, an index of features.rows.KINDS."""

    @property
    def ts(self) -> int: ...  # noqa: D102
    @property
    def kind(self) -> int: ...  # noqa: D102


class Bucket(msgspec.Struct, array_like=True, frozen=True, order=True, gc=False):
    """A user's events in a category between `start_ms` and `start_ms + width_ms`: count per kind, time (ms) of the newest."""

    start_ms: Milliseconds
    width_ms: Milliseconds
    clicks: Count
    carts: Count
    favourites: Count
    orders: Count
    last_ts: Milliseconds

    @property
    def count(self) -> int:
        """The number of events of all kinds."""
        return self.clicks + self.carts + self.favourites + self.orders


def fold(folded: Sequence[Bucket], events: Iterable[Countable], newest_ms: int) -> list[Bucket]:
    """The buckets with `events` added, each as wide as its age relative to `newest_ms` requires, ascending by time."""
    sums: dict[tuple[int, int], list[int]] = {}
    for bucket in folded:
        total = sums.setdefault(_place(bucket.start_ms, newest_ms), [0, 0, 0, 0, 0])
        for kind, count in enumerate((bucket.clicks, bucket.carts, bucket.favourites, bucket.orders)):
            total[kind] += count
        total[4] = max(total[4], bucket.last_ts)
    for event in events:
        total = sums.setdefault(_place(event.ts, newest_ms), [0, 0, 0, 0, 0])
        total[event.kind] += 1
        total[4] = max(total[4], event.ts)
    return [Bucket(start, width, *total) for (start, width), total in sorted(sums.items())]


def _place(ts: int, newest_ms: int) -> tuple[int, int]:
    """(start, width) of the bucket of a time stamp. All times in one bucket move to the same wider bucket later."""
    for width, age in zip(WIDTHS_MS, AGES_MS, strict=False):
        start = ts - ts % width
        if start + width > newest_ms - age:
            return start, width
    width = WIDTHS_MS[-1]
    return ts - ts % width, width

"""What is read of the lifelong sequence of one category: its newest events, and older ones as counted buckets."""

from math import ceil

from features.fold import Bucket, fold
from features.rows import Behaviour, CategoryRow

Read = Behaviour | Bucket


def read(row: CategoryRow, cap: int, folds: int = 0, share: float = 1.0) -> list[Read]:
    """At most `cap` entries, oldest first, buckets before events. Only the newest `share` of all events counts as there.

    Where not all fit, or some were folded by the row, at most `folds` (below `cap`) of the entries are buckets that stand
    for every older event, the oldest of them for all that is older still. Without `folds` older events are not read.
    """
    events, folded = _newest(row, share)
    if not folds:
        return list(events[-cap:])
    room = cap if not folded and len(events) <= cap else cap - folds
    older, kept = events[: max(0, len(events) - room)], events[max(0, len(events) - room) :]
    buckets = fold(folded, older, newest_ms=events[-1].ts) if older else folded
    return [*_at_most(buckets, folds), *kept]


def _newest(row: CategoryRow, share: float) -> tuple[list[Behaviour], list[Bucket]]:
    """The newest `share` of the events of a row; of its buckets those that fit into it whole."""
    if share >= 1:
        return row.events, row.folded
    wanted = ceil(share * row.count)
    events = row.events[max(0, len(row.events) - wanted) :]
    left, kept = wanted - len(events), len(row.folded)
    while kept and row.folded[kept - 1].count <= left:
        kept -= 1
        left -= row.folded[kept].count
    return events, row.folded[kept:]


def _at_most(buckets: list[Bucket], count: int) -> list[Bucket]:
    """At most `count` buckets: the oldest ones as one."""
    if len(buckets) <= count:
        return buckets
    many, last = buckets[: len(buckets) - count + 1], buckets[len(buckets) - count]
    one = Bucket(
        many[0].start_ms,
        last.start_ms + last.width_ms - many[0].start_ms,
        sum(bucket.clicks for bucket in many),
        sum(bucket.carts for bucket in many),
        sum(bucket.favourites for bucket in many),
        sum(bucket.orders for bucket in many),
        max(bucket.last_ts for bucket in many),
    )
    return [one, *buckets[len(many) :]]

"""Merges several topics of one partition by time: the list whose first record is oldest comes first.

After a backlog, one fetch may return days of clicks before the first queries. So a list waits while another topic of its partition may
still return an older one, and long lists are cut, so that no topic gets far ahead. Knows no Kafka and no clock.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Hashable
from typing import Any, NamedTuple, Protocol


class Timestamped(Protocol):
    """The field of a consumer record that the merge reads."""

    @property
    def timestamp(self) -> int:
        """Event time in ms."""
        ...


Lane = tuple[str, int]  # a topic and one of its partitions


class MergeLimits(NamedTuple):
    """How long a list waits (`grace_s`, seconds), and the sizes of pieces (records).

    A piece ends where another topic has an older record, but not before `piece_min` records, as a tiny batch costs as much as a medium
    one, nor after `piece_max`. A lane that holds `lane_full` records is not fetched for now.
    """

    grace_s: float = 1.0
    piece_min: int = 250
    piece_max: int = 2_000
    lane_full: int = 8_000


LIMITS = MergeLimits()


class TimestampMerge:
    """Merges the record lists of many lanes into one sequence of pieces, oldest first within each partition.

    Topics outside `step_topics` are cut into pieces but never wait. `caught_up(lane)` is true when all known records of a lane were added,
    and for a lane that is not read here.
    """

    def __init__(self, step_topics: Collection[str], caught_up: Callable[[Lane], bool], limits: MergeLimits = LIMITS) -> None:
        self._step_topics = frozenset(step_topics)
        self._caught_up = caught_up
        self._limits = limits
        self.clear()

    def clear(self) -> None:
        """Drop all lists: after a rebalance or a seek they are fetched again."""
        self._lanes: dict[Lane, deque[list[Any]]] = {}
        self._sizes: dict[Lane, int] = {}
        self._turns: deque[Hashable] = deque()  # groups that hold lists; the next one is first
        self._blocked_since: dict[Hashable, float] = {}
        self._given_up: set[Lane] = set()

    def __len__(self) -> int:
        """The number of records held."""
        return sum(self._sizes.values())

    def full(self) -> set[Lane]:
        """The lanes that need not be fetched now."""
        return {lane for lane, size in self._sizes.items() if size >= self._limits.lane_full}

    def add(self, lane: Lane, records: list[Any]) -> None:
        """Queue records of one lane, ascending by offset and after those added before."""
        if not records:
            return
        lane = (lane[0], lane[1])
        self._lanes.setdefault(lane, deque()).append(records)
        self._sizes[lane] = self._sizes.get(lane, 0) + len(records)
        self._given_up.discard(lane)
        if (group := self._group(lane)) not in self._turns:
            self._turns.append(group)

    def take(self, now: float) -> tuple[Lane, list[Any]] | None:
        """The next piece; None where nothing is held, or all of it must wait for lists not yet added. Partitions take turns.

        `now` (s, monotonic) is when the newest fetch ended: the grace time runs between fetches, not while pieces are processed.
        """
        for _ in range(len(self._turns)):
            group = self._turns.popleft()
            if self._must_wait(group, now):
                self._turns.append(group)
                continue
            queued = [lane for lane in self._members(group) if lane in self._lanes]
            lane = min(queued, key=self._head_ts)
            limit = min((self._head_ts(other) for other in queued if other != lane), default=None)
            piece = self._cut(lane, limit)
            if len(queued) > 1 or lane in self._lanes:
                self._turns.append(group)
            return lane, piece
        return None

    def _group(self, lane: Lane) -> Hashable:
        return lane[1] if lane[0] in self._step_topics else lane

    def _members(self, group: Hashable) -> list[Lane]:
        return [group] if isinstance(group, tuple) else [(topic, group) for topic in self._step_topics]  # type: ignore[misc]

    def _must_wait(self, group: Hashable, now: float) -> bool:
        empty = {lane for lane in self._members(group) if lane not in self._lanes}
        late = {lane for lane in empty if not self._caught_up(lane)}
        self._given_up -= empty - late
        if late - self._given_up:
            if now - self._blocked_since.setdefault(group, now) < self._limits.grace_s:
                return True
            self._given_up |= late
        self._blocked_since.pop(group, None)
        return False

    def _head_ts(self, lane: Lane) -> int:
        return int(self._lanes[lane][0][0].timestamp)

    def _cut(self, lane: Lane, limit: int | None) -> list[Any]:
        """Take the records up to `limit` (ms) from the lane's first list, within the sizes of pieces."""
        records = self._lanes[lane][0]
        end = min(len(records), self._limits.piece_max)
        if limit is not None and end > self._limits.piece_min:
            end = bisect_right(records, limit, self._limits.piece_min, end, key=lambda record: record.timestamp)
        if end < len(records):
            self._lanes[lane][0] = records[end:]
        else:
            self._lanes[lane].popleft()
        self._sizes[lane] -= end
        if not self._lanes[lane]:
            del self._lanes[lane], self._sizes[lane]
        return records[:end]

"""Reading several topics of one partition in step: the list whose first record is oldest is handed on first.

After a backlog one fetch may bring days of clicks before the first queries. So a list waits while another of the step topics of
its partition may still bring an older one, and long lists are cut, so that no topic gets far ahead. Knows no Kafka and no clock.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Hashable
from typing import Any, NamedTuple, Protocol


class Record(Protocol):
    """What a list is made of, as aiokafka gives it."""

    @property
    def timestamp(self) -> int:
        """Event time in ms."""
        ...


Lane = tuple[str, int]  # a topic and one of its partitions


class Limits(NamedTuple):
    """How patient and how coarse the merge is: `grace_s` in seconds, the rest in records.

    A piece ends where the turn of another topic comes, but not before `piece_min` records (a tiny batch costs as much as a middling
    one) nor after `piece_max`. A lane that holds `lane_full` records wants no more for now.
    """

    grace_s: float = 1.0
    piece_min: int = 250
    piece_max: int = 2_000
    lane_full: int = 8_000


LIMITS = Limits()


class TimestampMerge:
    """Merges the record lists of many lanes into one sequence of pieces, oldest first within each partition.

    Topics that are not in `step_topics` are cut into pieces, but wait for nobody. `caught_up(lane)` says whether all that is known
    to be in that lane was already added; a lane that nobody reads counts as caught up.
    """

    def __init__(self, step_topics: Collection[str], caught_up: Callable[[Lane], bool], limits: Limits = LIMITS) -> None:
        self._step_topics = frozenset(step_topics)
        self._caught_up = caught_up
        self._limits = limits
        self.clear()

    def clear(self) -> None:
        """Drop all lists: after a rebalance or a seek they come again."""
        self._lanes: dict[Lane, deque[list[Any]]] = {}
        self._sizes: dict[Lane, int] = {}
        self._turns: deque[Hashable] = deque()  # groups that hold lists; the one whose turn is next stands first
        self._blocked_since: dict[Hashable, float] = {}
        self._given_up: set[Lane] = set()

    def __len__(self) -> int:
        """How many records are held."""
        return sum(self._sizes.values())

    def full(self) -> set[Lane]:
        """Lanes that hold enough: more need not be fetched of them now."""
        return {lane for lane, size in self._sizes.items() if size >= self._limits.lane_full}

    def add(self, lane: Lane, records: list[Any]) -> None:
        """Queue a list of records of one lane, in the order of their offsets and after what was added of it before."""
        if not records:
            return
        lane = (lane[0], lane[1])
        self._lanes.setdefault(lane, deque()).append(records)
        self._sizes[lane] = self._sizes.get(lane, 0) + len(records)
        self._given_up.discard(lane)
        if (group := self._group(lane)) not in self._turns:
            self._turns.append(group)

    def take(self, now: float) -> tuple[Lane, list[Any]] | None:
        """The next piece, or None where nothing is held or all of it must wait for lists not yet added.

        `now` (s, monotonic) is when the newest fetch ended: the grace time runs from one fetch to another, not while pieces are worked on.
        Partitions take turns.
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
        return self._lanes[lane][0][0].timestamp

    def _cut(self, lane: Lane, limit: int | None) -> list[Any]:
        """Take from the lane's first list the records up to `limit` (ms), as far as the sizes of pieces allow."""
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

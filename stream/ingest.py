"""The ingest pipeline: a list of records of one partition becomes merged rows, refresh requests and dead letters.

It knows no Kafka. The order of its steps is a promise that the kill tests check:
1 decode, 2 read the rows that are not cached, 3 merge, 4 write, each row guarded by its version; then the agent goes on:
5 publish refresh requests and dead letters, 6 acknowledge. A failure anywhere leaves the batch to be processed again,
which is harmless: what a row counts is guarded by offsets (features.store.Version).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from features.apply import Applied, apply, reached
from features.codec import pack
from features.event_time import TimeRules
from features.events import MAX_EVENT_BYTES, Click, Item, Order, Query, Reason, Refusal, Topic, decode
from features.queries import query_rows
from features.rows import Behaviour, Search, UserRow, behaviours, search
from features.store import Key, OnlineStore, Stored, Version
from features.table import USER, USER_CATEGORY
from stream.messages import DeadLetter, RefreshRequest
from stream.partitioning import misplaced
from stream.row_cache import CachedUser, CategoryState, RowCache, Superseded, UserState
from stream.sent import sent_ms
from stream.steps import Steps, untimed

WRITE_ATTEMPTS = 5
MOST_DETAIL = 500  # characters of a dead letter's sentence, which may quote what came


class Record(Protocol):
    """What the pipeline reads of a consumer record (aiokafka's and kafka-python's alike)."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Outcome(NamedTuple):
    """What a batch came to. `counts`: applied, duplicate, redelivered and dead add up to the records of the batch."""

    refreshes: list[RefreshRequest]
    dead: list[DeadLetter]
    counts: Counter[str]
    rows_written: Counter[str]
    rows_refused: Counter[str]


class Arrived(NamedTuple):
    """A good event: its offset, when it was sent (wall clock, ms), event time (ms) and what it says."""

    offset: int
    sent_ms: int
    ts: int
    behaviours: list[Behaviour]
    search: Search | None


class Step(NamedTuple):
    """A user's rows after a merge, those to write, and what to tell."""

    state: CachedUser
    rows: list[tuple[Key, Stored]]
    counts: Counter[str]
    request: RefreshRequest


class Ingest:
    """Applies batches to the rows of a store. Not thread-safe: one batch at a time. `partitions`: how many each topic has.

    `era` gives a number that changes whenever partitions may have changed hands: rows cached before are read again. (Offsets do not
    show it: markers of transactions, aborted records and compaction leave gaps too.)
    """

    def __init__(
        self,
        store: OnlineStore,
        clock_ms: Callable[[], int],
        rules: TimeRules | None = None,
        epoch: int = 0,
        cached_events: int = 1_000_000,
        partitions: int = 1,
        era: Callable[[], int] = lambda: 0,
    ) -> None:
        self._store, self._clock_ms, self._rules, self._partitions = store, clock_ms, rules or TimeRules(), partitions
        self._cache = RowCache(store, epoch, cached_events)
        self._era, self._eras = era, dict[int, int]()

    def process(self, topic: Topic, records: Sequence[Record], steps: Steps = untimed) -> Outcome:
        """Apply records of one topic and partition, ascending by offset.

        Raises:
            StoreUnavailable: nothing is lost, process the same records again.
            Superseded: another worker owns these rows.
        """
        self._go_on(records[0].partition)
        with steps("decode"):
            pending, bad = self._decode(topic, records)  # 1
            dead = [dead_letter(records[b.position], b) for b in sorted(bad)]
        outcome = Outcome([], dead, Counter(dead=len(bad)), Counter(), Counter())
        for _ in range(WRITE_ATTEMPTS):
            if not pending:
                return outcome
            with steps("merge"):
                pending = self._apply(topic, records[0].partition, pending, outcome, steps)
        self._cache.leave(records[0].partition)
        raise Superseded(f"the rows of {len(pending)} users were refused {WRITE_ATTEMPTS} times: another worker is writing them")

    def _go_on(self, partition: int) -> None:
        """Forget the partition's rows if they were cached in another era: another worker may have written them since."""
        era = self._era()
        if self._eras.get(partition) != era:
            self._cache.leave(partition)
            self._eras[partition] = era

    def _decode(self, topic: Topic, records: Sequence[Record]) -> tuple[dict[str, list[Arrived]], list[Refusal]]:
        """What arrived, by user, and what is refused. A user who is cached for the partition was found to belong there."""
        partition = records[0].partition
        decoded = decode(topic, [record.value for record in records], self._clock_ms(), self._rules)
        bad = list(decoded.bad)
        good: dict[str, list[tuple[int, Click | Query | Order]]] = defaultdict(list)
        for position, event in decoded.good:
            assert not isinstance(event, Item)
            if records[position].key == event.user_id.encode():
                good[event.user_id].append((position, event))
            else:
                bad.append(Refusal(position, Reason.WRONG_KEY, "the record's key is not the event's user_id: set it when producing"))
        arrivals: dict[str, list[Arrived]] = {}
        for user, found in good.items():
            wrong = None if self._cache.holds(partition, user) else misplaced(user.encode(), partition, self._partitions)
            if wrong is None:
                arrivals[user] = [_arrived(records[position], event) for position, event in found]
            else:
                bad += [Refusal(position, Reason.WRONG_PARTITION, wrong) for position, _ in found]
        return arrivals, bad

    def _apply(
        self, topic: Topic, partition: int, arrivals: Mapping[str, list[Arrived]], outcome: Outcome, timed: Steps
    ) -> dict[str, list[Arrived]]:
        """Read, merge and write the rows of these users; gives back those whose write was refused."""
        try:
            steps = {user: _step(topic, user, *entry) for user, entry in self._read(partition, arrivals, timed).items()}  # 2, 3
            rows = [row for step in steps.values() for row in step.rows]
            rows += query_rows(a.search for found in arrivals.values() for a in found if a.search)
            with timed("write"):
                accepted = self._store.write(rows)  # 4
        except Exception:
            self._cache.leave(partition)  # the write may have been done in part: the same records come again, and their rows are read again
            raise
        refused = set()
        for (key, _), ok in zip(rows, accepted, strict=True):
            (outcome.rows_written if ok else outcome.rows_refused)[key.view] += 1
            if not ok:
                refused.add(key.entities[0])
        for user in steps.keys() - refused:
            self._cache.put(partition, user, steps[user].state)
            outcome.counts.update(steps[user].counts)
            outcome.refreshes.append(steps[user].request)
        for user in refused:
            self._cache.drop(partition, user)
        return {user: arrivals[user] for user in refused}

    def _read(self, partition: int, arrivals: Mapping[str, list[Arrived]], timed: Steps) -> dict[str, tuple[CachedUser, list[Arrived]]]:
        """The rows that each user's step needs: one read, and a second only where a query comes after what it explains."""
        wanted = {user: {b.category for a in found for b in a.behaviours} for user, found in arrivals.items()}
        cached = self._cache.load(partition, wanted, timed)
        late = {}
        for user, found in arrivals.items():
            more = reached(cached[user].user.row, (), [a.search for a in found if a.search]) - cached[user].categories.keys()
            if more:
                late[user] = wanted[user] | more
        if late:
            cached |= self._cache.load(partition, late, timed)
        return {user: (cached[user], found) for user, found in arrivals.items()}


def _arrived(record: Record, event: Click | Query | Order) -> Arrived:
    sent = sent_ms(record.headers, record.timestamp)
    if isinstance(event, Query):
        return Arrived(record.offset, sent, event.ts, [], search(event))
    return Arrived(record.offset, sent, event.ts, behaviours(event), None)


def _step(topic: Topic, user: str, cached: CachedUser, found: Sequence[Arrived]) -> Step:
    """Merge what arrived for a user. An event is fresh for a category row that does not hold its offset yet."""
    states = cached.categories
    fresh: list[Behaviour] = []
    again: list[Behaviour] = []
    for arrived in found:
        for event in arrived.behaviours:
            (again if _holds(states[event.category].version, topic, arrived) else fresh).append(event)
    searches = [arrived.search for arrived in found if arrived.search is not None]
    needed = reached(cached.user.row, (*fresh, *again), searches)
    applied = apply(cached.user.row, {category: states[category].row for category in needed}, fresh, searches, again)
    end, ts = found[-1].offset + 1, max(arrived.ts for arrived in found)
    version = cached.user.version.raised(topic, end)
    changed = {c: CategoryState(row, states[c].version.raised(topic, end)) for c, row in applied.categories.items()}
    to_write = [
        (Key(USER_CATEGORY.name, (user, c)), Stored(pack(s.row), s.version, s.row.events[-1].ts)) for c, s in sorted(changed.items())
    ]
    if applied.user != cached.user.row or version != cached.user.version:
        to_write.append((Key(USER.name, (user,)), Stored(pack(applied.user), version, _newest(applied.user))))
    written_before = {c for c in needed if _holds(states[c].version, topic, found[0])}  # by a try that may have told nobody
    categories = sorted({b.category for b in (*fresh, *again)} | changed.keys() | written_before)
    counts = _counts(topic, cached, found, applied, not again and all(arrived.behaviours for arrived in found))
    request = RefreshRequest(user_id=user, categories=categories, version=version, event_ts=ts, sent_ms=max(a.sent_ms for a in found))
    return Step(CachedUser(UserState(applied.user, version), states | changed), to_write, counts, request)


def _counts(topic: Topic, cached: CachedUser, found: Sequence[Arrived], applied: Applied, all_fresh: bool) -> Counter[str]:
    """How many events were applied, duplicates or redelivered. An order is what the best of its lines is.

    `all_fresh`: none is a query, and no behaviour was counted before.
    """
    if all_fresh and not applied.duplicates:
        return Counter(applied=len(found))
    dropped = Counter((b.ts, b.id) for b in applied.duplicates)
    dropped.update((q.ts, q.id) for q in applied.duplicate_queries)
    counts: Counter[str] = Counter()
    for arrived in found:
        holders = [cached.categories[b.category].version for b in arrived.behaviours] or [cached.user.version]
        identities = [(b.ts, b.id) for b in arrived.behaviours] + [(q.ts, q.id) for q in [arrived.search] if q is not None]
        if all(_holds(version, topic, arrived) for version in holders):
            counts["redelivered"] += 1
        elif identities and all(dropped[identity] for identity in identities):
            counts["duplicate"] += 1
            dropped.subtract(identities)
        else:
            counts["applied"] += 1
    return counts


def _holds(version: Version, topic: Topic, arrived: Arrived) -> bool:
    return arrived.offset < getattr(version, topic.value)


def _newest(row: UserRow) -> int:
    """Time (ms) of the newest event of a user row."""
    return max([event.ts for event in row.recent[-1:]] + [query.ts for query in row.queries[-1:]], default=0)


def dead_letter(record: Record, refusal: Refusal) -> DeadLetter:
    """The message of a refused record with its place, key and value; of each at most MAX_EVENT_BYTES, so that it fits a message."""
    key, key_cut = _beginning(record.key)
    value, value_cut = _beginning(record.value)
    return DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        reason=refusal.reason,
        detail=refusal.detail[:MOST_DETAIL],
        key=key,
        value=value,
        ts=record.timestamp,
        cut_bytes=key_cut + value_cut,
    )


def _beginning(part: bytes | None) -> tuple[bytes | None, int]:
    """As much of a key or value as a dead letter keeps, and how many bytes it leaves out."""
    return (None, 0) if part is None else (part[:MAX_EVENT_BYTES], max(0, len(part) - MAX_EVENT_BYTES))

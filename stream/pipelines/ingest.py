"""The ingest pipeline: records of one partition become merged rows, refresh requests and dead letters.

It knows no Kafka. The kill tests check the order of its steps:
1 decode, 2 read the rows that are not cached, 3 merge, 4 write, each row guarded by its log position; then the worker:
5 publish refresh requests and dead letters, 6 acknowledge. A failure anywhere leaves the batch to be processed again,
which is harmless: what a row counts is guarded by offsets (features.store.LogPosition). A user of whom a row cannot be read comes last,
when the others of the batch are written: the row is rebuilt from the log (stream.pipelines.mending).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from features.apply import reached
from features.event_time import TimeRules
from features.events import MAX_EVENT_BYTES, Click, Item, Order, Query, Reason, Refusal, Topic, decode
from features.quarantine import Quarantined
from features.store import OnlineStore
from stream.errors import SupersededError
from stream.kafka.messages import DeadLetter, RefreshRequest
from stream.kafka.topics import misplaced
from stream.pipelines.batch import Record, Steps, untimed
from stream.pipelines.mending import Mended, NoPast, Past, mend
from stream.pipelines.merging import ArrivedEvent, arrived, merge
from stream.pipelines.row_cache import CachedUser, RowCache

WRITE_ATTEMPTS = 5
MENDED_AT_ONCE = 100  # users whose events are in memory
MOST_DETAIL = 500  # characters of a dead letter's sentence, which may quote the record


class Outcome(NamedTuple):
    """The result of a batch. `counts`: applied, duplicate, redelivered and dead add up to the records of the batch.

    `apart` are the rows that could not be read, and are quarantined in the store.
    """

    refreshes: list[RefreshRequest]
    dead: list[DeadLetter]
    counts: Counter[str]
    rows_written: Counter[str]
    rows_refused: Counter[str]
    apart: list[Quarantined]


class Ingest:
    """Applies batches to the rows of a store. Not thread-safe: one batch at a time. `partitions`: how many each topic has.

    A row of an epoch before `rows_from_epoch` starts from nothing: the log holds all of its events again.
    `era` returns a number that changes whenever partitions may have changed hands: rows cached before are read again. (Offsets do not
    show it: markers of transactions, aborted records and compaction leave gaps too.)
    """

    def __init__(  # noqa: PLR0913
        self,
        store: OnlineStore,
        clock_ms: Callable[[], int],
        rules: TimeRules | None = None,
        epoch: int = 0,
        cached_events: int = 1_000_000,
        partitions: int = 1,
        era: Callable[[], int] = lambda: 0,
        past: Past | None = None,
        rows_from_epoch: int = 0,
    ) -> None:
        self._store, self._clock_ms, self._rules, self._partitions = store, clock_ms, rules or TimeRules(), partitions
        self._cache, self._past = RowCache(store, epoch, cached_events, rows_from_epoch), past or NoPast()
        self._era, self._eras = era, dict[int, int]()

    def process(self, topic: Topic, records: Sequence[Record], steps: Steps = untimed) -> Outcome:
        """Apply records of one topic and partition, ascending by offset.

        Raises:
            StoreUnavailableError, LogUnavailableError: nothing is lost, process the same records again.
            SupersededError: another worker owns these rows.
            features.codec.OtherLayoutError: another version of Everlong wrote a row.
        """
        self._check_era(records[0].partition)
        with steps("decode"):
            pending, bad = self._decode(topic, records)  # 1
            dead = [dead_letter(records[b.position], b) for b in sorted(bad)]
        outcome = Outcome([], dead, Counter(dead=len(bad)), Counter(), Counter(), [])
        unreadable: dict[str, list[ArrivedEvent]] = {}
        try:
            for _ in range(WRITE_ATTEMPTS):
                with steps("merge"):
                    pending = self._apply(records[0].partition, pending, outcome, unreadable, steps) if pending else {}
            if unreadable:
                self._mend(topic, records, unreadable, outcome)
        except Exception:
            self._cache.leave(records[0].partition)  # part of the write may have happened: the same records come again
            raise
        if pending:
            self._cache.leave(records[0].partition)
            raise SupersededError(f"the rows of {len(pending)} users were refused {WRITE_ATTEMPTS} times: another worker is writing them")
        return outcome

    def _check_era(self, partition: int) -> None:
        """Forget the partition's rows if they were cached in another era: another worker may have written them since."""
        era = self._era()
        if self._eras.get(partition) != era:
            self._cache.leave(partition)
            self._eras[partition] = era

    def _decode(self, topic: Topic, records: Sequence[Record]) -> tuple[dict[str, list[ArrivedEvent]], list[Refusal]]:
        """The valid events by user, and the refused records. A cached user of the partition is known to belong there."""
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
        arrivals: dict[str, list[ArrivedEvent]] = {}
        for user, found in good.items():
            wrong = None if self._cache.holds(partition, user) else misplaced(user.encode(), partition, self._partitions)
            if wrong is None:
                arrivals[user] = [arrived(topic, records[position], event) for position, event in found]
            else:
                bad += [Refusal(position, Reason.WRONG_PARTITION, wrong) for position, _ in found]
        return arrivals, bad

    def _apply(
        self,
        partition: int,
        arrivals: Mapping[str, list[ArrivedEvent]],
        outcome: Outcome,
        unreadable: dict[str, list[ArrivedEvent]],
        timed: Steps,
    ) -> dict[str, list[ArrivedEvent]]:
        """Read, merge and write the rows of these users, except `unreadable` ones; returns the events of users whose write was refused."""
        steps = {user: merge(user, *entry) for user, entry in self._read(partition, arrivals, timed).items()}  # 2, 3
        unreadable.update({user: found for user, found in arrivals.items() if user not in steps})
        rows = [row for step in steps.values() for row in step.rows]
        with timed("write"):
            accepted = self._store.write(rows)  # 4
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

    def _read(
        self, partition: int, arrivals: Mapping[str, list[ArrivedEvent]], timed: Steps
    ) -> dict[str, tuple[CachedUser, list[ArrivedEvent]]]:
        """The rows that each user's merge needs: one read, and a second only where a query arrives after the events that it explains."""
        wanted = {user: {b.category for a in found for b in a.behaviours} for user, found in arrivals.items()}
        cached = self._cache.load(partition, wanted, timed)
        late = {}
        for user in cached:
            found = arrivals[user]
            more = reached(cached[user].user.row, (), [a.search for a in found if a.search]) - cached[user].categories.keys()
            if more:
                late[user] = wanted[user] | more
        if late:
            again = self._cache.load(partition, late, timed)
            cached = {user: state for user, state in (cached | again).items() if user in again or user not in late}
        return {user: (state, arrivals[user]) for user, state in cached.items()}

    def _mend(self, topic: Topic, records: Sequence[Record], unreadable: Mapping[str, list[ArrivedEvent]], outcome: Outcome) -> None:
        """Rebuild the rows of these users from the log, including this batch."""
        users, partition = sorted(unreadable), records[0].partition
        for at in range(0, len(users), MENDED_AT_ONCE):
            part = users[at : at + MENDED_AT_ONCE]
            states = {user: self._cache.mended(user, {b.category for a in unreadable[user] for b in a.behaviours}) for user in part}
            held = [getattr(damaged.stored.log_position, topic) for _, found in states.values() for damaged in found]
            history = self._past.read(partition, {user.encode() for user in part}, {topic: max(records[0].offset, *held)})
            past: dict[str, list[ArrivedEvent]] = defaultdict(list)
            for source, again in history.records.items():
                for user, found in self._decode(source, again)[0].items() if again else ():
                    past[user] += found
            for user in part:
                categories = {b.category for a in (*past[user], *unreadable[user]) for b in a.behaviours}
                cached, damaged = self._cache.mended(user, categories)
                mended = mend(user, cached, damaged, past[user], unreadable[user], history, self._clock_ms())
                self._write_mended(records, unreadable[user], mended, outcome)

    def _write_mended(self, records: Sequence[Record], found: Sequence[ArrivedEvent], mended: Mended, outcome: Outcome) -> None:
        self._store.quarantine(mended.apart)
        accepted = dict(zip(mended.rows, self._store.write(list(mended.rows.items())), strict=True))
        for key, ok in accepted.items():
            (outcome.rows_written if ok else outcome.rows_refused)[key.view] += 1
        outcome.apart.extend(mended.apart)
        if all(accepted.values()):
            outcome.counts.update(mended.step.counts)
            outcome.refreshes.append(mended.step.request)
            return
        positions = {record.offset: record for record in records}
        why = "a row of the user is damaged, and the store refuses a new one: its log position is beyond the log; remove it, then replay"
        outcome.dead.extend(dead_letter(positions[a.offset], Refusal(0, Reason.UNREADABLE_ROW, why)) for a in found)
        outcome.counts["dead"] += len(found)


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

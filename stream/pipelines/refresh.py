"""The refresh pipeline: requests become interests and candidate sets of their users, under one bundle's generation.

It knows no Kafka. Steps: 1 coalesce requests by user (the worker's), 2 read `user` and `user_interests` in one round trip, 3 retrieve
(models.serving.retriever): predict categories, read the `user_category` rows of those whose interest is to be computed, search and merge,
4 one write, guarded by log positions; then the worker: 5 publish, 6 acknowledge. All steps may be repeated.

The fallback level is in each answer and in a metric: `short` where the backlog exceeds the budget, the popular ones where the model fails
or nothing is known of a user.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from features.codec import Row, pack, unpack
from features.errors import UnreadableRowError
from features.outcomes import CandidatesRow, InterestsRow
from features.quarantine import Quarantined
from features.rows import CategoryRow, UserRow
from features.store import Key, LogPosition, OnlineStore, Stored
from features.table import USER, USER_CANDIDATES, USER_CATEGORY, USER_INTERESTS
from models.serving.retriever import Options, Retrieved, Retriever, Serving, UserRows
from stream.kafka.messages import CandidateSet, PublishedCandidate, RefreshRequest, fitting
from stream.pipelines.batch import Steps, untimed


class User(NamedTuple):
    """A user to refresh: the request, rows, and the version under which outcomes are written."""

    request: RefreshRequest
    rows: UserRows
    version: LogPosition
    lost_interests: bool = False  # their row could not be read

    @property
    def event_ts(self) -> int:
        """Time (ms) of the newest event that the row holds."""
        row = self.rows.row
        return max([self.request.event_ts, *(e.ts for e in row.recent[-1:]), *(q.ts for q in row.queries[-1:])])


class RefreshOutcome(NamedTuple):
    """Sets to publish with the time (wall clock, ms) at which their newest event was sent, and counts."""

    sets: list[tuple[CandidateSet, int]]
    levels: Counter[str]
    failure: str | None  # of the model
    unreadable: Mapping[str, int] = MappingProxyType({})  # rows, by view, that could not be read and were taken as empty


class Refresh:
    """Computes and writes the interests and candidate sets of users. Not thread-safe: one batch at a time."""

    def __init__(self, store: OnlineStore, clock_ms: Callable[[], int], options: Options | None = None) -> None:
        self._store, self._clock_ms, self._options = store, clock_ms, options
        self._steps: Steps = untimed

    def process(self, serving: Serving, requests: Sequence[RefreshRequest], behind: bool = False, steps: Steps = untimed) -> RefreshOutcome:
        """Refresh the users of `requests`, which name each user once (`coalesce`). `behind`: the backlog exceeds the budget, so only level
        `short` is computed.

        A row that cannot be read is taken as empty: its user gets what is popular, or an interest without it, until ingest has rebuilt it.

        Raises:
            StoreUnavailableError: process the same requests again.
            features.codec.OtherLayoutError: another version of Everlong wrote a row.
        """
        self._steps = steps
        with steps("merge"):
            return self._process(serving, requests, behind)

    def _process(self, serving: Serving, requests: Sequence[RefreshRequest], behind: bool) -> RefreshOutcome:
        self._sound = SoundRows(self._store, self._clock_ms)
        users = self._read(requests)  # 2
        retriever, failure = Retriever(serving, self._options), None
        try:
            answers = self._retrieve(retriever, users, behind)  # 3
        except (RuntimeError, FloatingPointError) as error:  # torch's errors, a lost GPU among them
            failure = f"{type(error).__name__}: {error}"
            answers = retriever.retrieve_popular([user.rows for user in users], timed=self._steps)
        sets = self._write(retriever.serving.recommender.generation, users, answers)  # 4
        return RefreshOutcome(sets, Counter(found.level for found, _ in sets), failure, self._sound.unreadable)

    def _read(self, requests: Sequence[RefreshRequest]) -> list[User]:
        names = [request.user_id for request in requests]
        keys = [Key(USER.name, (name,)) for name in names] + [Key(USER_INTERESTS.name, (name,)) for name in names]
        with self._steps("read"):
            found = self._store.read(keys)
        users = []
        for request, row, interests in zip(requests, found[: len(names)], found[len(names) :], strict=True):
            version = row.log_position if row and any(row.log_position[1:]) else LogPosition(*request.log_position)
            lived, _ = self._sound.row(UserRow, Key(USER.name, (request.user_id,)), row)
            held, lost = self._sound.row(InterestsRow, Key(USER_INTERESTS.name, (request.user_id,)), interests)
            users.append(User(request, UserRows(lived, held, request.categories), version, lost))
        return users

    def _retrieve(self, retriever: Retriever, users: Sequence[User], behind: bool) -> list[Retrieved]:
        rows = [user.rows for user in users]
        if behind:
            return retriever.retrieve_short(rows, timed=self._steps)
        plan = retriever.plan(rows, timed=self._steps)
        return retriever.retrieve(plan, self._category_rows(users, plan.missing), timed=self._steps)

    def _category_rows(self, users: Sequence[User], wanted: Sequence[Collection[str]]) -> list[dict[str, CategoryRow]]:
        """The rows of the categories wanted of each user, in one round trip."""
        keys = [(n, category) for n, categories in enumerate(wanted) for category in categories]
        rows: list[dict[str, CategoryRow]] = [{} for _ in users]
        if keys:
            with self._steps("read"):
                found = self._store.read([Key(USER_CATEGORY.name, (users[n].request.user_id, category)) for n, category in keys])
            for (n, category), row in zip(keys, found, strict=True):
                rows[n][category], _ = self._sound.row(CategoryRow, Key(USER_CATEGORY.name, (users[n].request.user_id, category)), row)
        return rows

    def _write(self, generation: str, users: Sequence[User], answers: Sequence[Retrieved]) -> list[tuple[CandidateSet, int]]:
        now = self._clock_ms()
        rows: list[tuple[Key, Stored]] = []
        sets: dict[Key, tuple[CandidateSet, int]] = {}
        for user, answer in zip(users, answers, strict=True):
            name, ts = user.request.user_id, user.event_ts
            named = fitting([PublishedCandidate(c.item, c.score, c.category, c.path) for c in answer.candidates])
            kept = answer.candidates[: len(named)]
            row = CandidatesRow(candidates=kept, level=answer.level, generation=generation, event_ts=ts, published_ts=now)
            key = Key(USER_CANDIDATES.name, (name,))
            rows.append((key, Stored(pack(row), user.version, ts)))
            interests = InterestsRow() if answer.interests is None and user.lost_interests else answer.interests
            if interests is not None:
                rows.append((Key(USER_INTERESTS.name, (name,)), Stored(pack(interests), user.version, ts)))
            published = CandidateSet(user_id=name, candidates=named, level=row.level, generation=generation, event_ts=ts, published_ts=now)
            sets[key] = published, user.request.sent_ms
        with self._steps("write"):
            accepted = self._store.write(rows)
        return [sets[key] for (key, _), ok in zip(rows, accepted, strict=True) if ok and key in sets]


def coalesce(requests: Iterable[RefreshRequest]) -> list[RefreshRequest]:
    """One request a user: newest version, time and sending, all categories; users in order of their first request."""
    users: dict[str, RefreshRequest] = {}
    for request in requests:
        old = users.get(request.user_id, request)
        users[request.user_id] = RefreshRequest(
            user_id=request.user_id,
            categories=sorted({*old.categories, *request.categories}),
            log_position=max(old.log_position, request.log_position),
            event_ts=max(old.event_ts, request.event_ts),
            sent_ms=max(old.sent_ms, request.sent_ms),
        )
    return list(users.values())


class SoundRows:
    """Unpacks rows. Unreadable rows of ingest are left for ingest to rebuild; those of interests, computed again, are quarantined.

    `unreadable` counts the unreadable rows by view.
    """

    def __init__(self, store: OnlineStore, clock_ms: Callable[[], int]) -> None:
        self._store, self._clock_ms = store, clock_ms
        self.unreadable: Counter[str] = Counter()

    def row(self, kind: type[Row], key: Key, stored: Stored | None) -> tuple[Row, bool]:
        """The row, or the empty one and True where it cannot be read.

        Raises:
            StoreUnavailableError: it could not be quarantined.
            features.codec.OtherLayoutError: another version of Everlong wrote it.
        """
        try:
            return unpack(kind, stored and stored.packed), False
        except UnreadableRowError as error:
            self.unreadable[key.view] += 1
            if stored is not None and key.view == USER_INTERESTS.name:
                position, at_ms = (*stored.log_position,), self._clock_ms()
                kept = Quarantined(key.view, key.entities, str(error), at_ms, "complete", position, stored.ts_ms, stored.packed)
                self._store.quarantine([kept])
            return kind(), True

"""The refresh pipeline: requests become interests and candidate sets of their users, under one bundle's generation.

It knows no Kafka. Steps: 1 coalesce requests by user, 2 read `user` and `user_interests` in one round trip, 3 predict
categories and read the `user_category` rows of those whose interest is to be computed, and of the re-scorer, 4 towers,
5 search, order by demand, merge and re-score, 6 one versioned write; then the agent: 7 publish, 8 acknowledge. All steps may be repeated.

The ladder, when something is lost: full; short (the short interest, a live search and the user's own items, where the backlog
exceeds the budget); category_popular (no model: the user's own items and popular ones of their categories); popular. The level is
in the answer and in a metric.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import numpy as np

from features.codec import pack
from features.outcomes import Candidate, CandidatesRow, InterestsRow
from features.rows import CategoryRow, UserRow
from features.store import Key, LogPosition, OnlineStore, Stored
from features.table import USER, USER_CANDIDATES, USER_CATEGORY, USER_INTERESTS
from models.config.retrieval import Shares
from models.index import ItemIndex, View, Where
from models.rescoring.order import depth
from models.serving import live_query as asked
from models.serving import repeat as own
from models.serving.cascade import Searched, listed, merged, search, search_short
from models.serving.popular import Popular, popular_candidates
from models.serving.popularity_prior import Demand
from models.serving.quotas import Extra
from models.serving.recommender import Recommender, ShortState
from stream.kafka.messages import CandidateSet, PublishedCandidate, RefreshRequest, fitting
from stream.pipelines.batch import Steps, untimed
from stream.pipelines.interests import usable, without
from stream.pipelines.sound_rows import SoundRows

Chosen = Sequence[tuple[str, float]]  # categories of a user with their probabilities


class Serving:
    """What answers: a recommender and the index of its generation, with what is popular and how much; swapped as one."""

    def __init__(self, recommender: Recommender, index: ItemIndex) -> None:
        bundle = recommender.bundle
        self.recommender, self.index = recommender, index
        self.popular: Popular = bundle.popular
        self.demand = Demand(index.look(), bundle.popular, bundle.manifest.config.network.temperature)


class Limits(NamedTuple):
    """`top_k` categories a user, `candidates` in a set, whether bought items and those that cannot be had are left out, whether the
    bundle's re-scorer, where it has one, has the last word (models.rescoring), and shares (fields of models.config.retrieval) and a
    weight of demand (models.serving.popularity_prior) that stand in place of the bundle's."""

    top_k: int = 8
    candidates: int = 200
    exclude_bought: bool = True
    only_available: bool = True
    rescore: bool = True
    shares: Mapping[str, float] = MappingProxyType({})
    demand: float | None = None


class User(NamedTuple):
    """A user to refresh: the request, rows, and the version under which outcomes are written."""

    request: RefreshRequest
    row: UserRow
    interests: InterestsRow
    version: LogPosition
    lost_interests: bool = False  # their row could not be read

    @property
    def known(self) -> bool:
        """Whether there is anything that they did or searched for."""
        return bool(self.row.recent or self.row.queries)

    @property
    def event_ts(self) -> int:
        """Time (ms) of the newest event that the row holds."""
        row = self.row
        return max([self.request.event_ts, *(e.ts for e in row.recent[-1:]), *(q.ts for q in row.queries[-1:])])


class Answer(NamedTuple):
    """What a refresh found for one user; `interests` is None where none were computed."""

    candidates: list[Candidate]
    level: str
    interests: InterestsRow | None


NOTHING = Answer([], "", None)


class RefreshOutcome(NamedTuple):
    """Sets to publish with the time (wall clock, ms) at which their newest event was sent, and counts."""

    sets: list[tuple[CandidateSet, int]]
    levels: Counter[str]
    interests_computed: int
    interests_reused: int
    failure: str | None
    unreadable: Mapping[str, int] = MappingProxyType({})  # rows, by view, that could not be read and were taken as empty


class Refresh:
    """Answers requests with what `current` gives at the time. Not thread-safe: one batch at a time."""

    def __init__(
        self, store: OnlineStore, current: Callable[[], Serving], clock_ms: Callable[[], int], limits: Limits | None = None
    ) -> None:
        self._store, self._current, self._clock_ms = store, current, clock_ms
        self._limits = limits or Limits()
        self._where = Where(available=True) if self._limits.only_available else None
        self._steps: Steps = untimed

    def process(self, requests: Sequence[RefreshRequest], behind: bool = False, steps: Steps = untimed) -> RefreshOutcome:
        """Refresh the users of `requests`, each once. `behind`: the backlog exceeds the budget, take the short way.

        A row that cannot be read is taken as empty: its user gets what is popular, or an interest without it, until ingest has rebuilt it.

        Raises:
            StoreUnavailableError: process the same requests again.
            features.codec.OtherLayoutError: another version of Everlong wrote a row.
        """
        self._steps = steps
        with steps("merge"):
            return self._process(requests, behind)

    def _process(self, requests: Sequence[RefreshRequest], behind: bool) -> RefreshOutcome:
        self._sound = SoundRows(self._store, self._clock_ms)
        users = self._read(coalesce(requests))  # 1, 2
        serving = self._current()
        view = serving.index.look()
        computed = Computed()
        failure = None
        try:
            answers = self._short(serving, view, users) if behind else self._full(serving, view, users, computed)  # 3, 4, 5
        except (RuntimeError, FloatingPointError) as error:  # torch's errors, a lost GPU among them
            failure = f"{type(error).__name__}: {error}"
            answers = [NOTHING] * len(users)
        lost = iter(self._popular(serving, view, [user for user, answer in zip(users, answers, strict=True) if not answer.candidates]))
        answers = [answer if answer.candidates else next(lost) for answer in answers]
        sets = self._write(serving, users, answers)  # 6
        levels = Counter(found.level for found, _ in sets)
        return RefreshOutcome(sets, levels, computed.new, computed.reused, failure, self._sound.unreadable)

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
            users.append(User(request, lived, held, version, lost))
        return users

    def _full(self, serving: Serving, view: View, users: Sequence[User], computed: "Computed") -> list[Answer]:
        recommender = serving.recommender
        with self._steps("model"):
            state = recommender.short([user.row for user in users])
            _check(state.vectors)
            chosen = recommender.categories([user.row for user in users], state, self._limits.top_k)
        rescores = self._limits.rescore and recommender.rescores
        held = [usable(user.interests, user.request.categories, recommender) for user in users]
        rows = self._rows(users, [_wanted(recommender, *one, rescores) for one in zip(users, chosen, held, strict=True)])
        with self._steps("model"):
            long = _long(recommender, state, chosen, held, rows, computed)
        excluded, limit = self._excluded(users), self._limits.candidates
        together = depth(limit) if rescores else limit
        with self._steps("search"):
            searched = search(view, long, chosen, state.vectors, excluded, together, self._where)
        found_by_user = self._merged(serving, view, users, searched, excluded, together)
        if rescores:
            with self._steps("model"):
                found_by_user = recommender.rescore([user.row for user in users], rows, found_by_user, limit)
        answers = []
        for user, found, vectors, short, candidates in zip(users, chosen, long, state.vectors, found_by_user, strict=True):
            packed = _bytes(vectors) + _bytes(short)  # (K+1, d)
            names = [category for category, _ in found] + [""]
            interests = InterestsRow(categories=names, vectors=packed, dim=recommender.dim, generation=recommender.generation)
            answers.append(Answer(candidates if user.known else [], "full", interests))
        return answers

    def _rows(self, users: Sequence[User], wanted: Sequence[Collection[str]]) -> list[dict[str, CategoryRow]]:
        """The rows of the categories wanted of each user, in one round trip."""
        keys = [(n, category) for n, categories in enumerate(wanted) for category in categories]
        rows: list[dict[str, CategoryRow]] = [{} for _ in users]
        if keys:
            with self._steps("read"):
                found = self._store.read([Key(USER_CATEGORY.name, (users[n].request.user_id, category)) for n, category in keys])
            for (n, category), row in zip(keys, found, strict=True):
                rows[n][category], _ = self._sound.row(CategoryRow, Key(USER_CATEGORY.name, (users[n].request.user_id, category)), row)
        return rows

    def _short(self, serving: Serving, view: View, users: Sequence[User]) -> list[Answer]:
        with self._steps("model"):
            state = serving.recommender.short([user.row for user in users])
            _check(state.vectors)
        excluded, limit = self._excluded(users), self._limits.candidates
        with self._steps("search"):
            searched = search_short(view, state.vectors, excluded, limit, self._where)
        found = self._merged(serving, view, users, searched, excluded, limit)
        return [
            Answer(candidates if user.known else [], "short", without(user.interests, user.request.categories))
            for user, candidates in zip(users, found, strict=True)
        ]

    def _popular(self, serving: Serving, view: View, users: Sequence[User]) -> list[Answer]:
        if not users:
            return []
        limit, excluded = self._limits.candidates, self._excluded(users)
        share = self._shares(serving.recommender).repeat
        with self._steps("search"):
            again = own.repeated(view, [user.row for user in users], excluded, limit, self._where, share)
        answers = []
        for user, mine, exclude in zip(users, listed(view, again), excluded, strict=True):
            categories = [(touched.category, float(touched.count)) for touched in user.row.categories]
            found = popular_candidates(
                serving.popular, categories, limit=limit, exclude=exclude, view=view, where=self._where, own=mine, own_share=share
            )
            level = "popular" if all(candidate.path == "popular" for candidate in found) else "category_popular"
            answers.append(Answer(found, level, without(user.interests, user.request.categories)))
        return answers

    def _merged(
        self, serving: Serving, view: View, users: Sequence[User], searched: Searched, excluded: Sequence[set[str]], limit: int
    ) -> list[list[Candidate]]:
        recommender, given = serving.recommender, self._limits.demand
        with self._steps("search"):
            extras = self._extras(recommender, view, users, excluded, limit)
        ordered = serving.demand.ordered(searched, recommender.bundle.manifest.config.retrieval.demand if given is None else given)
        return merged(view, ordered, extras, self._shares(recommender))

    def _extras(self, recommender: Recommender, view: View, users: Sequence[User], excluded: Sequence[set[str]], limit: int) -> list[Extra]:
        """The lists beside the searches."""
        rows, shares, extras = [user.row for user in users], self._shares(recommender), []
        if shares.repeat:
            extras.append(own.repeated(view, rows, excluded, limit, self._where, shares.repeat))
        if shares.query:
            extras.append(asked.searched_for(view, rows, recommender.queries, excluded, limit, self._where, shares.query))
        return extras

    def _shares(self, recommender: Recommender) -> Shares:
        """The bundle's shares, but for those that are set."""
        return msgspec.structs.replace(recommender.bundle.manifest.config.retrieval.shares, **self._limits.shares)

    def _excluded(self, users: Sequence[User]) -> list[set[str]]:
        return [{event.item for event in user.row.bought} if self._limits.exclude_bought else set() for user in users]

    def _write(self, serving: Serving, users: Sequence[User], answers: Sequence[Answer]) -> list[tuple[CandidateSet, int]]:
        now, generation = self._clock_ms(), serving.recommender.generation
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


def _wanted(recommender: Recommender, user: User, chosen: Chosen, held: Mapping[str, np.ndarray], rescores: bool) -> list[str]:
    """The categories of a user whose rows are to be read: those whose interest is not at hand, and those of the re-scorer."""
    needed = [category for category, _ in chosen if category not in held]
    return list(dict.fromkeys([*needed, *(recommender.rescored_with(user.row) if rescores else ())]))


def _long(
    recommender: Recommender,
    state: ShortState,
    chosen: Sequence[Chosen],
    held: Sequence[dict[str, np.ndarray]],
    rows: Sequence[Mapping[str, CategoryRow]],
    computed: "Computed",
) -> list[np.ndarray]:
    """Long interests (K, d) of the chosen categories of each user: those `held`, others computed from the rows of their category."""
    needed = [(n, category) for n, found in enumerate(chosen) for category, _ in found if category not in held[n]]
    if needed:
        vectors = recommender.long(state, [(n, category, rows[n][category]) for n, category in needed])  # (R, d)
        _check(vectors)
        for (n, category), vector in zip(needed, vectors, strict=True):
            held[n][category] = vector
    every = [held[n][category] for n, found in enumerate(chosen) for category, _ in found]
    computed.new += len(needed)
    computed.reused += len(every) - len(needed)
    stacked = np.concatenate([*every, np.empty(0, np.float32)]).reshape(-1, recommender.dim)
    ends = np.cumsum([0, *(len(found) for found in chosen)]).tolist()
    return [stacked[start:end] for start, end in pairwise(ends)]


def _bytes(vectors: np.ndarray) -> bytes:
    return vectors.astype("<f4", copy=False).tobytes()


def _check(vectors: np.ndarray) -> None:
    if not np.isfinite(vectors).all():
        raise FloatingPointError("the model gave vectors that are not finite: roll the bundle back")


class Computed:
    """How many long interests a batch computed, and how many it took from the rows."""

    def __init__(self) -> None:
        self.new = 0
        self.reused = 0


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

"""The one retriever: rows in, candidates out. Refresh, evaluation, the choice of shares and benchmarks all call it.

    plan      short interests and the likeliest categories of B users; `Plan.missing` names the category rows that are needed
    retrieve  long interests, K+1 searches, the lists beside them, the merge; the fallback for users without candidates

Fallback levels, in this order:

    full              K category searches, one search of the pool, repeat items and a live search (ULIM, cascaded retrieval)
    short             without the category searches
    category_popular  repeat items and popular items of the user's categories
    popular           popular items of all

It knows neither store, broker nor clock. Not thread-safe.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from types import MappingProxyType
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from features.outcomes import Candidate, InterestsRow
from features.rows import CategoryRow, UserRow
from models.bundle.popular import Popular
from models.codes.codebook import Floats
from models.config.retrieval import Shares
from models.index import Found, ItemIndex, View, Where
from models.serving import live_query, repeat
from models.serving.cascade import Searched, listed, merged, search, search_short
from models.serving.interests import packed, usable, without
from models.serving.popular import popular_candidates
from models.serving.popularity_prior import Demand
from models.serving.quotas import Extra
from models.serving.recommender import Recommender, ShortState

Level = Literal["full", "short", "category_popular", "popular"]
Timer = Callable[[Literal["model", "search"]], AbstractContextManager[object]]  # called around each part of the work


class Options(NamedTuple):
    """What an operator may choose. None, and a share that is not named, stand for what the bundle says.

    Attributes:
        top_k: categories searched per user.
        candidates: most items of an answer.
        exclude_bought: leave out the items of the user's purchases.
        only_available: leave out items that are out of stock.
        shares: fields of models.config.retrieval, by name.
        demand: weight of recent popularity (models.serving.popularity_prior).
    """

    top_k: int = 8
    candidates: int = 200
    exclude_bought: bool | None = None
    only_available: bool = True
    shares: Mapping[str, float] = MappingProxyType({})
    demand: float | None = None


class Serving:
    """A recommender, the index of its generation, and what is popular; replaced as one."""

    def __init__(self, recommender: Recommender, index: ItemIndex, popular: Popular | None = None) -> None:
        """`popular`: instead of the bundle's, where that knows more than it may (evaluation)."""
        self.recommender, self.index = recommender, index
        self.popular = recommender.bundle.popular if popular is None else popular
        self.demand = Demand(index.look(), self.popular, recommender.bundle.manifest.config.network.temperature)


class UserRows(NamedTuple):
    """A user's rows. `touched`: categories with events since `interests` were computed, whose interest is stale."""

    row: UserRow
    interests: InterestsRow = InterestsRow()
    touched: Collection[str] = ()

    @property
    def known(self) -> bool:
        """Whether the user has an event or a query."""
        return bool(self.row.recent or self.row.queries)


class Plan(NamedTuple):
    """B users after the first half: a moment of the index, short interests, and K categories per user with probabilities."""

    users: Sequence[UserRows]
    view: View
    state: ShortState
    chosen: Sequence[Sequence[tuple[str, float]]]
    held: Sequence[Mapping[str, Floats]]  # long interests (d,) that still hold, by category

    @property
    def missing(self) -> list[list[str]]:
        """Per user the categories whose rows `retrieve` needs: those chosen whose interest does not hold."""
        return [[category for category, _ in chosen if category not in held] for chosen, held in zip(self.chosen, self.held, strict=True)]


class CandidateLists(NamedTuple):
    """What the lists of B users hold before the merge, as many hits each as candidates are wanted."""

    view: View
    searched: Searched
    repeat: Extra
    live: Extra


class Retrieved(NamedTuple):
    """The answer for one user, best first. `interests`: the row to store; None where nothing is to be changed."""

    candidates: list[Candidate]
    level: Level
    interests: InterestsRow | None


def untimed(_: str) -> AbstractContextManager[None]:
    """A Timer that measures nothing."""
    return nullcontext()


class Retriever:
    """Retrieves with what `serving` holds, as `options` say."""

    def __init__(self, serving: Serving, options: Options | None = None) -> None:
        self.serving, self.options = serving, options or Options()
        config = serving.recommender.bundle.manifest.config.retrieval
        self.shares: Shares = msgspec.structs.replace(config.shares, **self.options.shares)
        chosen = self.options.exclude_bought
        self.exclude_bought = config.exclude_bought if chosen is None else chosen
        self._demand = config.demand if self.options.demand is None else self.options.demand
        self._where = Where(available=True) if self.options.only_available else None

    def plan(self, users: Sequence[UserRows], timed: Timer = untimed) -> Plan:
        """The first half.

        Raises:
            FloatingPointError: the model returned vectors that are not finite. RuntimeError: torch failed, as when a GPU is lost.
        """
        recommender, rows = self.serving.recommender, [user.row for user in users]
        with timed("model"):
            state = recommender.short(rows)
            _check(state.vectors)
            chosen = recommender.categories(rows, state, self.options.top_k)
        held = [usable(user.interests, user.touched, recommender) for user in users]
        return Plan(users, self.serving.index.look(), state, chosen, held)

    def retrieve(
        self,
        plan: Plan,
        rows: Sequence[Mapping[str, CategoryRow]],
        exclude: Sequence[Collection[str]] | None = None,
        limit: int | None = None,
        timed: Timer = untimed,
    ) -> list[Retrieved]:
        """The second half: level `full`, and the popular levels for users of whom nothing is known or for whom nothing is found.

        Args:
            plan: of `plan`.
            rows: per user the rows of `plan.missing`; one that is absent has no event.
            exclude: per user items never to return, besides purchases where these are excluded.
            limit: most candidates; None: those of the options.

        Raises:
            FloatingPointError, RuntimeError: as of `plan`.
        """
        with timed("model"):
            long = self.interests(plan, rows)
        with timed("search"):
            lists = self.lists(plan, long, exclude, limit, self.shares)
        generation = self.serving.recommender.generation
        made = [
            packed([category for category, _ in chosen], vectors, short, generation)
            for chosen, vectors, short in zip(plan.chosen, long, plan.state.vectors, strict=True)
        ]
        return self._answered(plan.users, self.merge(lists), "full", made, exclude, limit, timed)

    def retrieve_short(
        self, users: Sequence[UserRows], exclude: Sequence[Collection[str]] | None = None, limit: int | None = None, timed: Timer = untimed
    ) -> list[Retrieved]:
        """Level `short`, which needs no category rows; arguments, errors and fallback as of `plan` and `retrieve`."""
        rows, view, k = [user.row for user in users], self.serving.index.look(), self._limit(limit)
        with timed("model"):
            state = self.serving.recommender.short(rows)
            _check(state.vectors)
        with timed("search"):
            excluded = self._excluded(rows, exclude)
            searched = search_short(view, state.vectors, excluded, k, self._where)
            lists = self._lists(view, rows, searched, excluded, k, self.shares)
        kept = [without(user.interests, user.touched) for user in users]
        return self._answered(users, self.merge(lists), "short", kept, exclude, limit, timed)

    def retrieve_popular(
        self, users: Sequence[UserRows], exclude: Sequence[Collection[str]] | None = None, limit: int | None = None, timed: Timer = untimed
    ) -> list[Retrieved]:
        """Levels `category_popular` and `popular`, which need no model; `exclude` and `limit` as of `retrieve`."""
        if not users:
            return []
        rows, view, k = [user.row for user in users], self.serving.index.look(), self._limit(limit)
        excluded, share = self._excluded(rows, exclude), self.shares.repeat
        with timed("search"):
            again = listed(view, repeat.repeated(view, rows, excluded, k, self._where, share))
        answers = []
        for user, mine, out in zip(users, again, excluded, strict=True):
            categories = [(touched.category, float(touched.count)) for touched in user.row.categories]
            found = popular_candidates(
                self.serving.popular, categories, limit=k, exclude=out, view=view, where=self._where, own=mine, own_share=share
            )
            level: Level = "popular" if all(candidate.path == "popular" for candidate in found) else "category_popular"
            answers.append(Retrieved(found, level, without(user.interests, user.touched)))
        return answers

    def interests(self, plan: Plan, rows: Sequence[Mapping[str, CategoryRow]]) -> list[Floats]:
        """Long interests (K, d) of each user: those that still hold, and the others computed from the rows of their categories."""
        needed = [(n, category) for n, categories in enumerate(plan.missing) for category in categories]
        vectors = self.serving.recommender.long(plan.state, [(n, category, rows[n].get(category, CategoryRow())) for n, category in needed])
        _check(vectors)  # (R, d)
        computed = dict(zip(needed, vectors, strict=True))
        every = [
            computed[n, category] if (n, category) in computed else plan.held[n][category]
            for n, chosen in enumerate(plan.chosen)
            for category, _ in chosen
        ]
        stacked = np.stack(every) if every else np.empty((0, self.serving.recommender.dim), np.float32)
        ends = np.cumsum([0, *(len(chosen) for chosen in plan.chosen)]).tolist()
        return [stacked[start:end] for start, end in pairwise(ends)]

    def lists(
        self,
        plan: Plan,
        long: Sequence[Floats],
        exclude: Sequence[Collection[str]] | None = None,
        limit: int | None = None,
        shares: Shares | None = None,
    ) -> CandidateLists:
        """All lists before they are merged. With `shares` those that have none are left empty; without, any shares can follow."""
        rows, k = [user.row for user in plan.users], self._limit(limit)
        excluded = self._excluded(rows, exclude)
        searched = search(plan.view, long, plan.chosen, plan.state.vectors, excluded, k, self._where)
        return self._lists(plan.view, rows, searched, excluded, k, shares)

    def merge(self, lists: CandidateLists, shares: Shares | None = None) -> list[list[Candidate]]:
        """Candidates of each user, best first, by `shares`; None: those of this retriever."""
        shares = shares or self.shares
        extras = [lists.repeat._replace(share=shares.repeat), lists.live._replace(share=shares.query)]
        return merged(lists.view, lists.searched, extras, shares)

    def _lists(
        self,
        view: View,
        rows: Sequence[UserRow],
        searched: Searched,
        excluded: Sequence[Collection[str]],
        k: int,
        shares: Shares | None,
    ) -> CandidateLists:
        again = Extra(repeat.PATH, Found.nothing(len(rows), k), 0.0)
        live = again._replace(path=live_query.PATH)
        if shares is None or shares.repeat:
            again = repeat.repeated(view, rows, excluded, k, self._where)
        if shares is None or shares.query:
            live = live_query.searched_for(view, rows, self.serving.recommender.queries, excluded, k, self._where)
        return CandidateLists(view, self.serving.demand.ordered(searched, self._demand), again, live)

    def _answered(
        self,
        users: Sequence[UserRows],
        found: Sequence[list[Candidate]],
        level: Level,
        interests: Sequence[InterestsRow | None],
        exclude: Sequence[Collection[str]] | None,
        limit: int | None,
        timed: Timer,
    ) -> list[Retrieved]:
        """Each user's candidates and interests, or the fallback."""
        lost = [n for n, (user, mine) in enumerate(zip(users, found, strict=True)) if not (user.known and mine)]
        some = None if exclude is None else [exclude[n] for n in lost]
        instead = dict(zip(lost, self.retrieve_popular([users[n] for n in lost], some, limit, timed), strict=True))
        return [instead.get(n, Retrieved(mine, level, row)) for n, (mine, row) in enumerate(zip(found, interests, strict=True))]

    def _limit(self, limit: int | None) -> int:
        return self.options.candidates if limit is None else limit

    def _excluded(self, rows: Sequence[UserRow], exclude: Sequence[Collection[str]] | None) -> list[Collection[str]]:
        bought = [frozenset(event.item for event in row.bought) if self.exclude_bought else frozenset() for row in rows]
        return list(bought) if exclude is None else [mine.union(out) for mine, out in zip(bought, exclude, strict=True)]


def _check(vectors: Floats) -> None:
    if not np.isfinite(vectors).all():
        raise FloatingPointError("the model gave vectors that are not finite: roll the bundle back")

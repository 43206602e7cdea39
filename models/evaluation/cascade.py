"""The cascade that serves, as a contender: a bundle's recommender over an exact index of its whole catalogue."""

from collections.abc import Collection, Sequence
from copy import copy
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from features.events import Item
from features.outcomes import Candidate
from features.rows import CategoryRow, UserRow
from models.bundle import Bundle
from models.codes.codebook import Floats
from models.config.retrieval import Shares
from models.evaluation.baselines import Answer
from models.evaluation.prediction_points import Question
from models.index import ItemIndex, Sizes
from models.rescoring.order import depth
from models.serving import live_query as live
from models.serving.cascade import Searched, merged, search
from models.serving.popular import NOTHING_POPULAR, Popular
from models.serving.popularity_prior import Demand
from models.serving.quotas import Extra
from models.serving.recommender import Recommender, ShortState
from models.serving.repeat import repeated


class Lists(NamedTuple):
    """What B users' lists hold before they are merged."""

    searched: Searched
    again: Extra
    near: Extra


class Cascade:
    """`top_k` category searches, one of the pool, the user's own items and what a live search finds, merged by the bundle's shares, and
    re-scored where the bundle can.

    It also names categories: gated, pointer, generator, counted, newest.
    """

    def __init__(
        self,
        recommender: Recommender,
        top_k: int,
        catalogue: Sequence[Item],
        own: Sequence[Item] = (),
        popular: Popular = NOTHING_POPULAR,
        rescore: bool = True,
    ) -> None:
        """Over `catalogue`; those of `own` are found only for a user who had them. New items get the vectors that serving gives them.

        `popular`: what was wanted before the cut, as demand; a bundle's own may know more than that. `rescore`: by the bundle's
        re-scorer, where it has one.
        """
        self._rescore = rescore and recommender.rescores
        self._recommender, self._top_k, self._shares = recommender, top_k, recommender.bundle.manifest.config.retrieval.shares
        table = recommender.bundle.items
        place = {item: at for at, item in enumerate(table.ids)}
        kept = [item for item in (*catalogue, *own) if item.item_id in place]
        new = [item for item in (*catalogue, *own) if item.item_id not in place]
        fresh = recommender.item_vectors(new)
        recommender.remember([item.item_id for item in new], fresh)
        vectors = np.concatenate([table.vectors[[place[item.item_id] for item in kept]], fresh])
        ids, categories = [item.item_id for item in (*kept, *new)], [item.category_id for item in (*kept, *new)]
        self._own = frozenset(item.item_id for item in own)
        exact = Sizes(exact=max(1, len(ids)))
        parts = None if recommender.fused else recommender.item_parts([*kept, *new])
        self._view = ItemIndex(recommender.bundle.codebook, vectors, ids, categories, parts=parts, sizes=exact).look()
        self._demand = Demand(self._view, popular, recommender.bundle.manifest.config.network.temperature)

    @property
    def bundle(self) -> Bundle:
        """What it serves from."""
        return self._recommender.bundle

    def answer(self, asked: Sequence[Question], k: int) -> list[Answer]:
        """As promised by `Contender`."""
        users = [question.row for question in asked]
        state = self._recommender.short(users)
        chosen = self._recommender.categories(users, state, self._top_k)
        merge_at = depth(k) if self._rescore else k
        long = self._long(asked, state, chosen)

        def found(exclude: Sequence[Collection[str]]) -> list[list[str]]:
            lists = self._lists(users, state, chosen, long, exclude, merge_at)
            candidates = self._merged(lists, self._shares)
            if self._rescore:
                candidates = self._recommender.rescore(users, [question.rows for question in asked], candidates, k)
            return [[candidate.item for candidate in mine] for mine in candidates]

        every, fresh = found(self._not_theirs(asked)), found([self._own | question.had for question in asked])
        parts = self._recommender.category_parts(users, state, self._top_k)
        named = [
            {
                "gated": [category for category, _ in mine],
                "pointer": pointer,
                "generator": generator,
                "categories by count": by_count(user, self._top_k),
                "categories by time": [touched.category for touched in user.categories[::-1][: self._top_k]],
            }
            for mine, (pointer, generator), user in zip(chosen, parts, users, strict=True)
        ]
        return [Answer(*lists) for lists in zip(every, fresh, named, strict=True)]

    def shared(self, shares: Shares) -> "Cascade":
        """The same bundle over the same catalogue, merged by other shares."""
        other = copy(self)
        other._shares = shares
        return other

    def lists(self, asked: Sequence[Question], k: int) -> Lists:
        """All lists of what is asked, `k` hits each, to be merged by one choice of shares after the other."""
        users = [question.row for question in asked]
        state = self._recommender.short(users)
        chosen = self._recommender.categories(users, state, self._top_k)
        return self._lists(users, state, chosen, self._long(asked, state, chosen), self._not_theirs(asked), k)

    def merged(self, lists: Lists, shares: Shares) -> list[list[str]]:
        """The items of each user, best first, by these shares; not re-scored."""
        return [[candidate.item for candidate in mine] for mine in self._merged(lists, shares)]

    def _merged(self, lists: Lists, shares: Shares) -> list[list[Candidate]]:
        extras = [lists.again._replace(share=shares.repeat), lists.near._replace(share=shares.query)]
        return merged(self._view, lists.searched, extras, shares)

    def _lists(
        self,
        users: Sequence[UserRow],
        state: ShortState,
        chosen: Sequence[Sequence[tuple[str, float]]],
        long: Sequence[Floats],
        exclude: Sequence[Collection[str]],
        k: int,
    ) -> Lists:
        searched = search(self._view, long, chosen, state.vectors, exclude, k)
        searched = self._demand.ordered(searched, self.bundle.manifest.config.retrieval.demand)
        near = live.searched_for(self._view, users, self._recommender.queries, exclude, k)
        return Lists(searched, repeated(self._view, users, exclude, k), near)

    def _long(self, asked: Sequence[Question], state: ShortState, chosen: Sequence[Sequence[tuple[str, float]]]) -> list[Floats]:
        """The long interests (K, d) of each user."""
        requests = [(n, category, asked[n].rows.get(category, CategoryRow())) for n, mine in enumerate(chosen) for category, _ in mine]
        vectors = self._recommender.long(state, requests)
        ends = np.cumsum([0, *(len(mine) for mine in chosen)])
        return [vectors[start:end] for start, end in pairwise(ends)]

    def _not_theirs(self, asked: Sequence[Question]) -> list[frozenset[str]]:
        """What a user cannot be shown: items out of the catalogue that the user never had."""
        return [self._own - question.had for question in asked]


def by_count(user: UserRow, k: int) -> list[str]:
    """The `k` categories that a user touched most often, the newer of two first."""
    return [touched.category for touched in sorted(user.categories, key=lambda touched: (-touched.count, -touched.last_ts))[:k]]

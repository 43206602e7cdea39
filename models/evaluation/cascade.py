"""The retriever that serves, as a contender: a bundle's recommender over an exact index of its whole catalogue."""

from collections.abc import Collection, Sequence

import msgspec
import numpy as np

from features.availability import is_available
from features.events import Item
from features.outcomes import Candidate
from features.rows import UserRow
from models.bundle import Bundle
from models.bundle.popular import NOTHING_POPULAR, Popular
from models.config.retrieval import Shares
from models.evaluation.baselines import Answer
from models.evaluation.prediction_points import Question
from models.index import ItemIndex, Sizes
from models.serving.recommender import Recommender
from models.serving.retriever import CandidateLists, Level, Options, Plan, Retriever, Serving, UserRows


class Cascade:
    """`models.serving.retriever` on held-out moments. It also names categories: gated, pointer, generator, counted, newest."""

    def __init__(
        self,
        recommender: Recommender,
        options: Options,
        catalogue: Sequence[Item],
        own: Sequence[Item] = (),
        popular: Popular = NOTHING_POPULAR,
    ) -> None:
        """Over `catalogue`; items of `own` are found only for users with events of them. New items get the vectors that serving gives
        them. `popular`: what was popular before the cut; a bundle's own may include later events.
        """
        self._own = frozenset(item.item_id for item in own)
        self._serving = Serving(recommender, _index(recommender, [*catalogue, *own]), popular)
        self._retriever = Retriever(self._serving, options)

    @property
    def bundle(self) -> Bundle:
        """The bundle that is served."""
        return self._serving.recommender.bundle

    @property
    def retriever(self) -> Retriever:
        """What retrieves."""
        return self._retriever

    def changed(self, shares: Shares | None = None, exclude_bought: bool | None = None) -> "Cascade":
        """The same bundle and catalogue with other shares, or another choice about purchases; what is None stays."""
        options, other = self._retriever.options, object.__new__(Cascade)
        if shares is not None:
            options = options._replace(shares=msgspec.structs.asdict(shares))
        if exclude_bought is not None:
            options = options._replace(exclude_bought=exclude_bought)
        other._own, other._serving, other._retriever = self._own, self._serving, Retriever(self._serving, options)
        return other

    def answer(self, asked: Sequence[Question], k: int) -> list[Answer]:
        """As promised by `Contender`."""
        plan = self._plan(asked)
        every, fresh = (self._retrieved(plan, asked, k, new) for new in (False, True))
        return [
            Answer(_items(mine), _items(unseen), categories)
            for mine, unseen, categories in zip(every, fresh, self._categories(plan), strict=True)
        ]

    def candidates(self, asked: Sequence[Question], k: int, new: bool = False, level: Level = "full") -> list[list[Candidate]]:
        """The best `k` candidates of each question; `new`: of items without an event of the user; `level`: the best fallback level."""
        if level == "full":
            return self._retrieved(self._plan(asked), asked, k, new)
        users, retriever = [UserRows(question.row) for question in asked], self._retriever
        retrieve = retriever.retrieve_short if level == "short" else retriever.retrieve_popular
        return [found.candidates for found in retrieve(users, self._excluded(asked, new), k)]

    def lists(self, asked: Sequence[Question], k: int) -> CandidateLists:
        """All lists, `k` hits each, to be merged by one choice of shares after the other."""
        plan = self._plan(asked)
        long = self._retriever.interests(plan, [question.rows for question in asked])
        return self._retriever.lists(plan, long, self._excluded(asked, False), k)

    def merged(self, lists: CandidateLists, shares: Shares) -> list[list[str]]:
        """The items of each user, best first, by these shares."""
        return [_items(candidates) for candidates in self._retriever.merge(lists, shares)]

    def _retrieved(self, plan: Plan, asked: Sequence[Question], k: int, new: bool) -> list[list[Candidate]]:
        rows, exclude = [question.rows for question in asked], self._excluded(asked, new)
        return [found.candidates for found in self._retriever.retrieve(plan, rows, exclude, k)]

    def _excluded(self, asked: Sequence[Question], new: bool) -> list[Collection[str]]:
        """Items outside the catalogue without an event of the user; with `new` every item with one too."""
        return [self._own | question.had if new else self._own - question.had for question in asked]

    def _plan(self, asked: Sequence[Question]) -> Plan:
        return self._retriever.plan([UserRows(question.row) for question in asked])

    def _categories(self, plan: Plan) -> list[dict[str, list[str]]]:
        """Categories per user by each method of naming them."""
        users, k = [user.row for user in plan.users], self._retriever.options.top_k
        parts = self._serving.recommender.category_parts(users, plan.state, k)
        return [
            {
                "gated": [category for category, _ in mine],
                "pointer": pointer,
                "generator": generator,
                "categories by count": by_count(user, k),
                "categories by time": [touched.category for touched in user.categories[::-1][:k]],
            }
            for mine, (pointer, generator), user in zip(plan.chosen, parts, users, strict=True)
        ]


def by_count(user: UserRow, k: int) -> list[str]:
    """The `k` categories with most events of the user, the newer of two first."""
    return [touched.category for touched in sorted(user.categories, key=lambda touched: (-touched.count, -touched.last_ts))[:k]]


def _items(candidates: Sequence[Candidate]) -> list[str]:
    return [candidate.item for candidate in candidates]


def _index(recommender: Recommender, items: Sequence[Item]) -> ItemIndex:
    """An exact index of the items; the recommender learns the vectors of those that its bundle does not hold."""
    table = recommender.bundle.items
    place = {item: at for at, item in enumerate(table.ids)}
    kept, new = [item for item in items if item.item_id in place], [item for item in items if item.item_id not in place]
    fresh = recommender.item_vectors(new)
    recommender.remember([item.item_id for item in new], fresh)
    vectors, both = np.concatenate([table.vectors[[place[item.item_id] for item in kept]], fresh]), [*kept, *new]
    return ItemIndex(
        recommender.bundle.codebook,
        vectors,
        [item.item_id for item in both],
        [item.category_id for item in both],
        available=[is_available(item) for item in both],
        parts=None if recommender.fused else recommender.item_parts(both),
        sizes=Sizes(exact=max(1, len(both))),
    )

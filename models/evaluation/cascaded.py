"""The cascade that serves, as a contender: a bundle's recommender over an exact index of its whole catalogue."""

from collections.abc import Collection, Sequence
from itertools import pairwise

import numpy as np

from features.events import Item
from features.rows import CategoryRow, UserRow
from models.bundle import Bundle
from models.evaluation.contenders import Answer
from models.evaluation.questions import Question
from models.index import ItemIndex, Sizes
from models.recommender import Recommender
from models.rescoring.order import depth
from models.retrieval import asked as live
from models.retrieval.cascade import retrieve
from models.retrieval.own import SHARE, repeated


class Cascade:
    """`top_k` category searches, one of the pool, the user's own items and what a live search finds, merged, and re-scored where the
    bundle can.

    It also names categories: gated, pointer, generator, counted, newest.
    """

    def __init__(
        self,
        recommender: Recommender,
        top_k: int,
        catalogue: Sequence[Item],
        own: Sequence[Item] = (),
        repeat_share: float = SHARE,
        query_share: float = live.SHARE,
        rescore: bool = True,
    ) -> None:
        """Over `catalogue`; those of `own` are found only for a user who had them. New items get the vectors that serving gives them.

        `rescore`: by the bundle's re-scorer, where it has one.
        """
        self._rescore = rescore and recommender.rescores
        self._recommender, self._top_k, self._repeat_share, self._query_share = recommender, top_k, repeat_share, query_share
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

    @property
    def bundle(self) -> Bundle:
        """What it serves from."""
        return self._recommender.bundle

    def answer(self, asked: Sequence[Question], k: int) -> list[Answer]:
        """As promised by `Contender`."""
        users = [question.row for question in asked]
        state = self._recommender.short(users)
        chosen = self._recommender.categories(users, state, self._top_k)
        requests = [(n, category, asked[n].rows.get(category, CategoryRow())) for n, mine in enumerate(chosen) for category, _ in mine]
        ends = np.cumsum([0, *(len(mine) for mine in chosen)])
        long = self._recommender.long(state, requests)
        vectors = [long[start:end] for start, end in pairwise(ends)]

        merged = depth(k) if self._rescore else k

        def found(exclude: Sequence[Collection[str]]) -> list[list[str]]:
            again = repeated(self._view, users, exclude, merged, share=self._repeat_share)
            near = live.searched_for(self._view, users, self._recommender.queries, exclude, merged, share=self._query_share)
            lists = retrieve(self._view, vectors, chosen, state.vectors, exclude, merged, extras=[again, near])
            if self._rescore:
                lists = self._recommender.rescore(users, [question.rows for question in asked], lists, k)
            return [[candidate.item for candidate in candidates] for candidates in lists]

        every, fresh = found([self._own - question.had for question in asked]), found([self._own | question.had for question in asked])
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


def by_count(user: UserRow, k: int) -> list[str]:
    """The `k` categories that a user touched most often, the newer of two first."""
    return [touched.category for touched in sorted(user.categories, key=lambda touched: (-touched.count, -touched.last_ts))[:k]]

"""What is left where there is no model: popular items of the user's categories and the user's own, then popular of all.

They are merged by the rule of models.serving.quotas, one user at a time.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from heapq import merge as merge_ordered
from itertools import chain, compress, count, islice

import numpy as np

from features.outcomes import Candidate
from models.bundle.popular import Hit, Popular, best_first
from models.index import View, Where
from models.serving.quotas import beside, weights

Place = tuple[float, str, int, Candidate]  # place, item, number of the list, candidate


def popular_candidates(
    popular: Popular,
    categories: Sequence[tuple[str, float]],
    *,
    limit: int,
    exclude: Collection[str],
    view: View | None = None,
    where: Where | None = None,
    own: Sequence[Candidate] = (),
    own_share: float = 0.0,
) -> list[Candidate]:
    """Popular items of the user's categories, shared as in `retrieve`, and the user's own; popular of all for the places left.

    Args:
        popular: what is popular.
        categories: (category, weight), any scale; their order makes no difference.
        limit: most candidates.
        exclude: items never to return.
        view: items that are gone, moved to another category or held back by `where` are left out.
        where: which items may be returned at all; read only with a `view`.
        own: the user's own items, best first (models.serving.repeat), as candidates of the categories that they are in now.
        own_share: the places that are theirs, 0 (leave them out) to below 1, where categories have popular items too.
    """
    ordered = sorted(dict(categories).items(), key=lambda found: (-found[1], found[0]))
    shares = weights([weight for _, weight in ordered], 1.0)
    queues = [
        _queue(_candidates(category, popular.by_category.get(category, ()), exclude), weight, number)
        for number, ((category, _), weight) in enumerate(zip(ordered, shares, strict=True))
    ]
    if own_share:
        mine = (candidate for candidate in own if candidate.item not in exclude)
        queues.append(_queue(mine, beside(own_share), len(queues)))
    every = (Candidate(item, score, category, "popular") for item, score, category in popular.overall if item not in exclude)
    last = ((float("inf"), candidate.item, number, candidate) for number, candidate in zip(count(len(queues)), every, strict=False))
    walk: Iterable[Place] = chain(merge_ordered(*queues), last)
    return _first(walk if view is None else _there(walk, view, where, limit), limit)


def _candidates(category: str, hits: Sequence[Hit], exclude: Collection[str]) -> Iterator[Candidate]:
    for item, score in sorted(hits, key=best_first):
        if item not in exclude:
            yield Candidate(item, score, category, "category_popular")


def _queue(candidates: Iterable[Candidate], weight: float, number: int) -> Iterator[Place]:
    """Candidates of one list with their places."""
    for rank, candidate in enumerate(candidates):
        yield (rank + 0.5) / weight, candidate.item, number, candidate


def _there(places: Iterable[Place], view: View, where: Where | None, together: int) -> Iterator[Place]:
    """Those of items that are still in their category and pass the filter; `together` are looked up at once."""
    walk = iter(places)
    while some := list(islice(walk, together)):
        numbers = view.numbers([item for _, item, _, _ in some])
        named = np.array([view.category_number(candidate.category) for *_, candidate in some])
        here = (numbers >= 0) & (view.category_numbers(numbers) == named) & view.passing(numbers, where)
        yield from compress(some, here.tolist())


def _first(places: Iterable[Place], limit: int) -> list[Candidate]:
    """The first `limit` different items."""
    chosen: dict[str, Candidate] = {}
    if limit > 0:
        for _, item, _, candidate in places:
            chosen.setdefault(item, candidate)
            if len(chosen) == limit:
                break
    return list(chosen.values())

"""What is left where there is no model: popular items of the user's categories and the user's own, then popular of all.

They are merged by the rule of models.serving.quotas, one user at a time.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from heapq import merge as merge_ordered
from itertools import chain, compress, count, islice
from typing import NamedTuple

import numpy as np

from features.outcomes import Candidate
from models.index import View, Where
from models.serving.quotas import beside, weights

POPULAR_DEPTH = 500

Hit = tuple[str, float]  # item, score
Place = tuple[float, str, int, Candidate]  # place, item, number of the list, candidate


class Popular(NamedTuple):
    """Popular items, best first, ties by item id: of each category, and of all as (item, score, category)."""

    by_category: Mapping[str, Sequence[Hit]]
    overall: Sequence[tuple[str, float, str]]

    @classmethod
    def of(cls, counts: Iterable[tuple[str, str, float]], depth: int = POPULAR_DEPTH) -> "Popular":
        """From (item, category, count), one for each item; at most `depth` items a list, none with a count of 0."""
        groups: dict[str, list[Hit]] = {}
        for item, category, number in counts:
            if number > 0:
                groups.setdefault(category, []).append((item, float(number)))
        by_category = {category: sorted(hits, key=best_first)[:depth] for category, hits in sorted(groups.items())}
        every = ((item, score, category) for category, hits in by_category.items() for item, score in hits)
        overall = sorted(every, key=lambda hit: best_first(hit[:2]))[:depth]
        return cls(by_category, overall)


NOTHING_POPULAR = Popular({}, ())


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


def best_first(hit: Hit) -> tuple[float, str]:
    """The order of hits: best score first, ties by item id."""
    return -hit[1], hit[0]


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

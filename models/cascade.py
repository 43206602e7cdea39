"""Cascaded retrieval: K category searches and one of the whole pool for each user, merged (papers, section 1.3).

The merge. Each list has a weight: the short list `SHORT_SHARE` as the safety net, the categories share the rest, `EVEN_SHARE`
of it evenly (the floor) and what remains in proportion to their probability. The hit at rank r (from 0, excluded items
taken out) of a list with weight w has place (r + 1/2) / w, Webster's rule for seats. An item found by several lists has the
best of its places, and the list that gave it is its finder: it says path and score. The candidates are the items by place.

So every first k of them, not only all, has the quotas; places that a short list leaves go to the others; and scores of
different vectors, which are not comparable (the long tower learns inside a category only), never decide between lists.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from heapq import merge as merge_ordered
from itertools import chain, count
from typing import NamedTuple

import numpy as np

from features.outcomes import Candidate
from models.blocks import Hit, best_first
from models.codebook import Floats
from models.index import ItemIndex

SHORT_SHARE = 0.2
EVEN_SHARE = 0.25
POPULAR_DEPTH = 500

CategoryOf = Callable[[str], str | None]
CategoryHits = tuple[str, float, Sequence[Hit]]  # category, probability, its hits
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


def merge(
    category_hits: Sequence[CategoryHits],
    short_hits: Sequence[Hit],
    *,
    limit: int,
    exclude: Collection[str],
    category_of: CategoryOf,
    short_share: float = SHORT_SHARE,
    even_share: float = EVEN_SHARE,
) -> list[Candidate]:
    """At most `limit` candidates of one user by the rule above, path `category` or `short`; never one of `exclude`, none twice.

    `category_of` names the category of a short hit; an item unknown to it (just deleted) is left out. The order of hits,
    and that of the categories, makes no difference. Shares lie in [0, 1]; a share of 0 for a list still fills free places.
    """
    categories = sorted(category_hits, key=lambda found: (-found[1], found[0]))
    queues = _category_queues(categories, "category", exclude, 1 - short_share, even_share)
    known = ((item, score, category_of(item)) for item, score in sorted(short_hits, key=best_first) if item not in exclude)
    short = (Candidate(item, score, category, "short") for item, score, category in known if category is not None)
    return _first(merge_ordered(*queues, _queue(short, short_share, len(queues))), limit)


def retrieve(
    index: ItemIndex,
    long_vectors: Sequence[Floats],
    categories: Sequence[Sequence[tuple[str, float]]],
    short_vectors: Floats,
    excludes: Sequence[Collection[str]],
    limit: int,
) -> list[list[Candidate]]:
    """Candidates of B users: their K+1 searches in two batches, then one merge each.

    Args:
        index: where to search.
        long_vectors: for each user (K, d) float32, row k for the items of its k-th category; K may differ between users.
        categories: for each user K times (category, probability).
        short_vectors: (B, d) float32, for the whole pool.
        excludes: for each user the items never to return (bought, dismissed).
        limit: candidates a user.

    Raises:
        ValueError: numbers of rows that do not fit, or vectors that the index refuses.
    """
    if not len(long_vectors) == len(categories) == len(short_vectors) == len(excludes):
        raise ValueError(f"users: {len(long_vectors)}, {len(categories)}, {len(short_vectors)}, {len(excludes)}")
    for user, (vectors, chosen) in enumerate(zip(long_vectors, categories, strict=True)):
        if len(vectors) != len(chosen):
            raise ValueError(f"user {user} has {len(vectors)} long vectors for {len(chosen)} categories")
    if not len(short_vectors):
        return []
    rows = [(user, category, probability) for user, chosen in enumerate(categories) for category, probability in chosen]
    found: list[list[CategoryHits]] = [[] for _ in categories]
    if rows:
        stacked = np.concatenate([vectors for vectors in long_vectors if len(vectors)])
        hits = index.search_categories(stacked, [row[1] for row in rows], limit, [excludes[row[0]] for row in rows])
        for (user, category, probability), mine in zip(rows, hits, strict=True):
            found[user].append((category, probability, mine))
    short = index.search_pool(short_vectors, limit, excludes)
    return [
        merge(mine, pool, limit=limit, exclude=exclude, category_of=index.category_of)
        for mine, pool, exclude in zip(found, short, excludes, strict=True)
    ]


def retrieve_short(index: ItemIndex, short_vectors: Floats, excludes: Sequence[Collection[str]], limit: int) -> list[list[Candidate]]:
    """Candidates of B users from the short vectors (B, d) alone: the first step down from `retrieve`, same promises."""
    return retrieve(index, [short_vectors[:0]] * len(short_vectors), [[]] * len(short_vectors), short_vectors, excludes, limit)


def popular_candidates(
    popular: Popular,
    categories: Sequence[tuple[str, float]],
    *,
    limit: int,
    exclude: Collection[str],
    category_of: CategoryOf | None = None,
) -> list[Candidate]:
    """What is left without a model: popular items of the user's categories, shared as in `merge`, then popular of all.

    `categories` gives (category, weight), any scale; without any, or where they do not fill `limit`, path `popular` follows
    path `category_popular`. With `category_of`, items that are gone or moved to another category are left out.
    """
    ordered = sorted(dict(categories).items(), key=lambda found: (-found[1], found[0]))
    lists = [(category, weight, popular.by_category.get(category, ())) for category, weight in ordered]
    queues = _category_queues(lists, "category_popular", exclude, 1.0, EVEN_SHARE)
    every = (Candidate(item, score, category, "popular") for item, score, category in popular.overall if item not in exclude)
    last = ((float("inf"), candidate.item, number, candidate) for number, candidate in zip(count(len(queues)), every, strict=False))
    walk: Iterable[Place] = chain(merge_ordered(*queues), last)
    if category_of is not None:
        walk = (place for place in walk if category_of(place[3].item) == place[3].category)
    return _first(walk, limit)


def _category_queues(
    lists: Sequence[CategoryHits], path: str, exclude: Collection[str], share: float, even: float
) -> list[Iterator[Place]]:
    weights = np.array([max(probability, 0.0) for _, probability, _ in lists])
    total = weights.sum()
    parts = weights / total if total > 0 else np.full(len(lists), 1 / max(len(lists), 1))
    shares = [share * (even / len(lists) + (1 - even) * part) for part in parts.tolist()]
    return [
        _queue(_candidates(category, hits, path, exclude), weight, number)
        for number, ((category, _, hits), weight) in enumerate(zip(lists, shares, strict=True))
    ]


def _candidates(category: str, hits: Sequence[Hit], path: str, exclude: Collection[str]) -> Iterator[Candidate]:
    for item, score in sorted(hits, key=best_first):
        if item not in exclude:
            yield Candidate(item, score, category, path)


def _queue(candidates: Iterable[Candidate], weight: float, number: int) -> Iterator[Place]:
    """Candidates of one list with their places; those of a list without weight come after all others."""
    least = max(weight, 1e-9)
    for rank, candidate in enumerate(candidates):
        yield (rank + 0.5) / least, candidate.item, number, candidate


def _first(places: Iterable[Place], limit: int) -> list[Candidate]:
    """The first `limit` different items."""
    chosen: dict[str, Candidate] = {}
    if limit > 0:
        for _, item, _, candidate in places:
            chosen.setdefault(item, candidate)
            if len(chosen) == limit:
                break
    return list(chosen.values())

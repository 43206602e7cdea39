"""What a model must beat: popular, popular in the user's categories, and what the user did before."""

from collections import Counter
from collections.abc import Iterable, Mapping

from features.history import Deeds
from features.rows import CategoryRow, UserRow
from models.cascade import Popular, popular_candidates


def popularity(done: Mapping[str, Deeds], until_ts: int, depth: int) -> Popular:
    """How often each item was wanted before `until_ts` (ms), in the category of its newest event."""
    counts: Counter[str] = Counter()
    category: dict[str, tuple[int, str]] = {}
    for deeds in done.values():
        for event in deeds.events:
            if event.ts < until_ts:
                counts[event.item] += 1
                category[event.item] = max(category.get(event.item, (0, "")), (event.ts, event.category))
    return Popular.of(((item, category[item][1], float(count)) for item, count in counts.items()), depth)


def most_popular(popular: Popular, k: int) -> list[str]:
    """The same for everybody."""
    return [item for item, _, _ in popular.overall[:k]]


def popular_in_categories(popular: Popular, user: UserRow, k: int) -> list[str]:
    """Popular items of the user's categories, shared by how often they were touched, then popular of all."""
    weights = [(touched.category, float(touched.count)) for touched in user.categories]
    return [found.item for found in popular_candidates(popular, weights, limit=k, exclude=())]


def seen_before(categories: Mapping[str, CategoryRow], k: int) -> list[str]:
    """The user's own items, the newest first."""
    events = sorted((event for row in categories.values() for event in row.events), key=lambda event: -event.ts)
    return list(dict.fromkeys(event.item for event in events))[:k]


def filled(first: Iterable[str], then: Iterable[str], k: int) -> list[str]:
    """The first `k` distinct items of two lists, one after the other."""
    return list(dict.fromkeys([*first, *then]))[:k]

"""Cascaded retrieval: K category searches and one of the whole pool for each user, merged by models.serving.quotas (papers, section 1.3).

`search` finds, `models.serving.popularity_prior` may put what was found in another order, `merged` merges. Beside the K+1 lists others may
take part (`Extra`): the user's own items (models.serving.repeat), what a live search finds (models.serving.live_query).
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.outcomes import Candidate
from models.codes.codebook import Floats
from models.config.retrieval import USUAL, Shares
from models.index import Found, View, Where
from models.serving.quotas import LEAST, Extra, Ints, Lists, choose, weights


class Searched(NamedTuple):
    """What the K+1 searches of B users found: R hits lists of categories, those of a user together, and one of the pool each."""

    pool: Found  # (B, limit)
    categories: Found  # (R, limit)
    chosen: Sequence[Sequence[tuple[str, float]]]  # for each user (category, probability), R in all


def search(
    view: View,
    long_vectors: Sequence[Floats],
    categories: Sequence[Sequence[tuple[str, float]]],
    short_vectors: Floats,
    excludes: Sequence[Collection[str]],
    limit: int,
    where: Where | None = None,
) -> Searched:
    """The K+1 searches of B users, in two batches.

    Args:
        view: where to search.
        long_vectors: for each user (K, d) float32, row k for the items of its k-th category; K may differ between users.
        categories: for each user K times (category, probability), no category twice. Their order makes no difference.
        short_vectors: (B, d) float32, for the whole pool.
        excludes: for each user the items never to return (bought, dismissed).
        limit: most hits of a search.
        where: which items may be returned at all.

    Raises:
        ValueError: numbers of rows that do not fit, or vectors that the index refuses.
    """
    _check(long_vectors, categories, short_vectors, excludes)
    users, count = len(short_vectors), sum(len(chosen) for chosen in categories)
    if limit < 1 or not users:
        return Searched(Found.nothing(users, max(limit, 0)), Found.nothing(count, max(limit, 0)), categories)
    hidden = view.excluding(excludes)
    pool = view.search_pool(short_vectors, limit, hidden, where)
    if not count:
        return Searched(pool, Found.nothing(0, limit), categories)
    names = [category for chosen in categories for category, _ in chosen]  # (R,)
    mine = [hidden[user] for user, chosen in enumerate(categories) for _ in chosen]  # (R,)
    stacked = np.concatenate([vectors for vectors in long_vectors if len(vectors)])  # (R, d)
    return Searched(pool, view.search_categories(stacked, names, limit, mine, where), categories)


def search_short(
    view: View, short_vectors: Floats, excludes: Sequence[Collection[str]], limit: int, where: Where | None = None
) -> Searched:
    """The search of the pool alone, for B users: the first step down from `search`, same promises."""
    none = [short_vectors[:0]] * len(short_vectors)
    return search(view, none, [[]] * len(short_vectors), short_vectors, excludes, limit, where)


def merged(view: View, searched: Searched, extras: Sequence[Extra] = (), shares: Shares = USUAL) -> list[list[Candidate]]:
    """Candidates of B users, best first, as many as a search gave hits: one merge of all lists. Paths are `category`, `short`, and
    those of the extras, which are made for the same users, view, excludes, limit and filter.

    Raises:
        ValueError: an extra that does not fit, or a share of one.
    """
    users, limit = searched.pool.numbers.shape
    _check_extras(extras, users, limit)
    if not users or not limit:
        return [[] for _ in range(users)]
    names = [category for chosen in searched.chosen for category, _ in chosen]  # (R,)
    owner = np.repeat(np.arange(users), [len(chosen) for chosen in searched.chosen])  # (R,)
    each = (weights([probability for _, probability in chosen], 1 - shares.short, shares.even) for chosen in searched.chosen)
    weight = np.array([weight for mine in each for weight in mine])  # (R,)
    lists = [_Found(searched.categories, owner, weight, np.array(names, object), np.full(len(names), "category", object))]
    lists.append(_pool(searched.pool, "short", max(shares.short, LEAST)))
    lists += [_pool(extra.found, extra.path, extra.weight) for extra in extras if extra.share]
    return _named(view, _joined(lists), users, limit)


def listed(view: View, extra: Extra) -> list[list[Candidate]]:
    """What one list gives by itself: for each of B users its candidates, best first."""
    users, limit = extra.found.numbers.shape
    return _named(view, _pool(extra.found, extra.path, 1.0), users, limit)


def _check(
    long_vectors: Sequence[Floats],
    categories: Sequence[Sequence[tuple[str, float]]],
    short_vectors: Floats,
    excludes: Sequence[Collection[str]],
) -> None:
    if not len(long_vectors) == len(categories) == len(short_vectors) == len(excludes):
        raise ValueError(f"users: {len(long_vectors)}, {len(categories)}, {len(short_vectors)}, {len(excludes)}")
    for user, (vectors, chosen) in enumerate(zip(long_vectors, categories, strict=True)):
        if len(vectors) != len(chosen):
            raise ValueError(f"user {user} has {len(vectors)} long vectors for {len(chosen)} categories")


def _check_extras(extras: Sequence[Extra], users: int, limit: int) -> None:
    for extra in extras:
        if extra.found.numbers.shape != (users, limit) or not 0 <= extra.share < 1:
            shape = extra.found.numbers.shape
            raise ValueError(f"list {extra.path}: {shape} hits for {users} users and {limit} places, share {extra.share}")


class _Found(NamedTuple):
    """Lists of users with what names their hits. `category` is empty where each hit has its own."""

    found: Found  # (Q, k)
    user: Ints  # (Q,)
    weight: NDArray[np.float64]  # (Q,)
    category: NDArray[np.object_]  # (Q,) str
    path: NDArray[np.object_]  # (Q,) str


def _pool(found: Found, path: str, weight: float) -> _Found:
    """One list for each of B users, of items of any category."""
    users = len(found.numbers)
    return _Found(found, np.arange(users), np.full(users, weight), np.full(users, "", object), np.full(users, path, object))


def _joined(lists: Sequence[_Found]) -> _Found:
    """All lists of a user together, in the order in which they are given."""
    found = Found(*(np.concatenate(parts) for parts in zip(*(one.found for one in lists), strict=True)))
    user, weight, category, path = (np.concatenate(parts) for parts in zip(*(one[1:] for one in lists), strict=True))
    order = user.argsort(kind="stable")
    return _Found(Found(found.numbers[order], found.scores[order]), user[order], weight[order], category[order], path[order])


def _named(view: View, lists: _Found, users: int, limit: int) -> list[list[Candidate]]:
    """Merge, and name what is kept."""
    numbers, scores = lists.found
    places = choose(Lists(numbers, lists.user, lists.weight), users, limit, view.names)  # (B, limit)
    kept = places[places >= 0]  # (n,)
    items, row = numbers.ravel()[kept], kept // numbers.shape[1]
    category = lists.category[row]
    own = category == ""
    numbered, which = np.unique(view.category_numbers(items[own]), return_inverse=True)
    category[own] = np.array([view.category_name(number) for number in numbered.tolist()], dtype=object)[which]
    named = list(map(Candidate, view.names(items), scores.ravel()[kept].tolist(), category.tolist(), lists.path[row].tolist()))
    ends = (places >= 0).sum(1).cumsum().tolist()
    return [named[start:end] for start, end in zip([0, *ends], ends, strict=False)]

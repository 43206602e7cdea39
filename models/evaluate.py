"""How good a bundle is on held-out baskets: full catalogue, exact scores, the serving code, beside the baselines.

A temporal split: nothing at or after the cut was trained on. Each held-out basket is asked for with the rows just before
it (features.history.moments). `hit@k`, `hr@k`: an answer of k has a category, an item, of that basket. `recall@50`: share of
the distinct items of the basket and the user's following `HORIZON_MS` that 50 answers hold, at most 50 counted.
Intervals are the 2.5 and 97.5 percentiles of a bootstrap over users.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from features.event_time import DAY_MS
from features.history import Deeds, Moment, moments
from features.rows import CategoryRow, UserRow
from models.baselines import filled, most_popular, popular_in_categories, seen_before
from models.cascade import Popular, retrieve
from models.index import ItemIndex
from models.recommender import Recommender

HORIZON_MS = DAY_MS
DEPTH = 200
BATCH = 64
Metrics = dict[str, dict[str, float]]  # method -> metric -> value


def evaluate(
    recommender: Recommender, popular: Popular, done: Mapping[str, Deeds], cut_ms: int, per_user: int, top_k: int, seed: int
) -> Metrics:
    """The table of methods and metrics on baskets from `cut_ms` on, at most `per_user` of each user; empty without any."""
    tests = list(moments(dict(done), from_ts=cut_ms, per_user=per_user))
    if not tests:
        return {}
    scores: dict[str, list[dict[str, float]]] = {}
    table = recommender.bundle.items
    codebook = recommender.bundle.codebook
    index = ItemIndex(codebook, table.vectors, table.ids, table.categories, codes=table.codes, exact=len(table.ids))
    for start in range(0, len(tests), BATCH):
        batch = tests[start : start + BATCH]
        cascaded, chosen = _cascade(recommender, index, batch, top_k)
        for moment, found, named in zip(batch, cascaded, chosen, strict=True):
            wanted = _wanted(moment, done[moment.user])
            for method, items in _answers(popular, moment, found):
                scores.setdefault(method, []).append(_item_metrics(items, moment, wanted))
            for method, categories in named.items():
                scores.setdefault(method, []).append(_category_metrics(categories, moment))
    users = [moment.user for moment in tests]
    return {method: _summarise(rows, users, seed) for method, rows in scores.items()}


def _cascade(
    recommender: Recommender, index: ItemIndex, batch: Sequence[Moment], top_k: int
) -> tuple[list[list[str]], list[dict[str, list[str]]]]:
    """Items of each moment, and its categories by each method."""
    users = [moment.row for moment in batch]
    state = recommender.short(users)
    chosen = recommender.categories(users, state, top_k)
    requests = [(n, category, batch[n].categories.get(category, CategoryRow())) for n, mine in enumerate(chosen) for category, _ in mine]
    ends = np.cumsum([0, *(len(mine) for mine in chosen)])
    long = recommender.long(state, requests)
    vectors = [long[start:end] for start, end in pairwise(ends)]
    found = retrieve(index, vectors, chosen, state.vectors, [()] * len(batch), DEPTH)
    parts = recommender.category_parts(users, state, top_k)
    named = [
        {
            "gated": [category for category, _ in mine],
            "pointer": pointer,
            "generator": generator,
            "categories by count": _by_count(user, top_k),
            "categories by time": [touched.category for touched in user.categories[::-1][:top_k]],
        }
        for mine, (pointer, generator), user in zip(chosen, parts, users, strict=True)
    ]
    return [[candidate.item for candidate in candidates] for candidates in found], named


def _answers(popular: Popular, moment: Moment, cascaded: list[str]) -> Iterator[tuple[str, list[str]]]:
    overall = most_popular(popular, DEPTH)
    yield "cascade", cascaded
    yield "most popular", overall
    yield "popular in categories", popular_in_categories(popular, moment.row, DEPTH)
    yield "seen before", filled(seen_before(moment.categories, DEPTH), overall, DEPTH)


def _by_count(user: UserRow, k: int) -> list[str]:
    return [touched.category for touched in sorted(user.categories, key=lambda touched: (-touched.count, -touched.last_ts))[:k]]


def _wanted(moment: Moment, done: Deeds) -> set[str]:
    return {event.item for event in done.events if moment.ts <= event.ts < moment.ts + HORIZON_MS}


def _item_metrics(answer: Sequence[str], moment: Moment, wanted: set[str]) -> dict[str, float]:
    basket = {event.item for event in moment.basket}
    scores = {f"hr@{k}": float(not basket.isdisjoint(answer[:k])) for k in (20, 50, 200)}
    return scores | {"recall@50": len(wanted.intersection(answer[:50])) / min(50, len(wanted))}


def _category_metrics(named: Sequence[str], moment: Moment) -> dict[str, float]:
    basket = {event.category for event in moment.basket}
    return {f"hit@{k}": float(not basket.isdisjoint(named[:k])) for k in (1, 8)}


def _summarise(rows: Sequence[dict[str, float]], users: Sequence[str], seed: int) -> dict[str, float]:
    """Mean of each metric over moments, with `_low` and `_high` of the bootstrap over users."""
    names = list(rows[0])
    values = np.array([[row[name] for name in names] for row in rows])  # (moments, metrics)
    _, owner = np.unique(np.asarray(users), return_inverse=True)
    sums = np.stack([np.bincount(owner, column) for column in values.T], 1)  # (users, metrics)
    counts = np.bincount(owner)  # (users,)
    drawn = np.random.default_rng(seed).integers(0, len(counts), (200, len(counts)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)[:, None]  # (200, metrics)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    summary = {"moments": float(len(values)), "users": float(len(counts))}
    for name, mean, least, most in zip(names, values.mean(0), low, high, strict=True):
        summary |= {name: round(float(mean), 4), f"{name}_low": round(float(least), 4), f"{name}_high": round(float(most), 4)}
    return summary


def table(metrics: Metrics) -> str:
    """The metrics as lines of text, one a method, with intervals."""
    lines = []
    for method, summary in metrics.items():
        names = [name for name in summary if f"{name}_low" in summary]
        told = (f"{name} {summary[name]:.3f} [{summary[name + '_low']:.3f}, {summary[name + '_high']:.3f}]" for name in names)
        lines.append(f"{method:22} " + "  ".join(told))
    return "\n".join(lines)

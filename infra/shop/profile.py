"""Statistics of a set of events, to compare shops."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from features.events import Click, Event, Order, Query
from features.rows import KINDS, Behaviour, behaviours


def profile(events: Iterable[Event]) -> dict[str, float]:
    """Statistics by name. Shares and statistics of items and categories are of behaviours: clicks of all kinds, order lines.

    `repeat`: the share on items that the user had interacted with before; `category_repeat`: the same for categories;
    `category_stays`: the share in the category of the user's previous event; entropies are of a user's categories.
    """
    users: dict[str, list[Behaviour]] = defaultdict(list)
    queries = total = 0
    for event in events:
        total += 1
        if isinstance(event, Query):
            queries += 1
        elif isinstance(event, Click | Order):
            users[event.user_id] += behaviours(event)
    told = [sorted(one, key=lambda behaviour: (behaviour.ts, behaviour.id)) for one in users.values()]
    everything = [behaviour for one in told for behaviour in one]
    if not everything:
        return {"events": total, "queries": queries}
    count = len(everything)
    kinds = Counter(behaviour.kind for behaviour in everything)
    figures: dict[str, float] = {"events": total, "queries": queries, "users": len(told)}
    figures["items"] = len({behaviour.item for behaviour in everything})
    figures["categories"] = len({behaviour.category for behaviour in everything})
    figures |= {f"{name}_share": kinds[kind] / count for kind, name in enumerate(KINDS)}
    figures |= _quantiles("history", [len(one) for one in told], (50, 90, 99))
    figures |= _quantiles("user_categories", [len({behaviour.category for behaviour in one}) for one in told], (50, 90))
    figures |= _quantiles("entropy_bits", [_entropy(behaviour.category for behaviour in one) for one in told], (10, 50, 90))
    figures["repeat"] = sum(len(one) - len({behaviour.item for behaviour in one}) for one in told) / count
    figures["category_repeat"] = sum(len(one) - len({behaviour.category for behaviour in one}) for one in told) / count
    pairs = [(before, after) for one in told for before, after in pairwise(one)]
    figures["category_stays"] = sum(before.category == after.category for before, after in pairs) / count
    figures |= _quantiles("gap_s", [(after.ts - before.ts) / 1000 for before, after in pairs] or [0.0], (10, 25, 50, 75, 90, 99))
    return figures


def _quantiles(name: str, values: list[float] | list[int], percents: tuple[int, ...]) -> dict[str, float]:
    return {f"{name}_p{percent}": float(np.percentile(values, percent)) for percent in percents}


def _entropy(values: Iterable[str]) -> float:
    counts = np.array(list(Counter(values).values()))
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())

"""What is popular, as a bundle stores it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

POPULAR_DEPTH = 500

Hit = tuple[str, float]  # item, score


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


def best_first(hit: Hit) -> tuple[float, str]:
    """The order of hits: best score first, ties by item id."""
    return -hit[1], hit[0]

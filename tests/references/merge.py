"""Slow, obvious version of the merge of models.serving.quotas: one user, plain lists and names. For tests; not for serving."""

from collections.abc import Sequence

from features.outcomes import Candidate
from models.config.retrieval import USUAL, Shares
from models.serving.quotas import LEAST, weights


def merge(
    category_hits: Sequence[tuple[str, float, Sequence[tuple[str, float]]]],
    short_hits: Sequence[tuple[str, float, str]],
    limit: int,
    extras: Sequence[tuple[str, float, Sequence[tuple[str, float, str]]]] = (),
    shares: Shares = USUAL,
) -> list[Candidate]:
    """At most `limit` candidates, path `category`, `short` or that of an extra list, none twice.

    Category hits are (category, probability, its (item, score)), short hits (item, score, category). The order of these hits,
    and that of the categories, makes no difference. An extra list is (path, share, its hits, best first).
    """
    ordered = sorted(category_hits, key=lambda found: (-found[1], found[0]))
    lists = [[Candidate(item, score, category, "category") for item, score in hits] for category, _, hits in ordered]
    lists.append([Candidate(item, score, category, "short") for item, score, category in short_hits])
    lists = [sorted(found, key=lambda hit: (-hit.score, hit.item)) for found in lists]
    weight = [*weights([probability for _, probability, _ in ordered], 1 - shares.short, shares.even), max(shares.short, LEAST)]
    for path, share, hits in extras:
        if share > 0:
            lists.append([Candidate(item, score, category, path) for item, score, category in hits])
            weight.append(share / (1 - share))
    places = []
    for number, (found, part) in enumerate(zip(lists, weight, strict=True)):
        for rank, candidate in enumerate(found):
            places.append(((rank + 0.5) / part, candidate.item, number, candidate))
    chosen: dict[str, Candidate] = {}
    for _, item, _, candidate in sorted(places):
        chosen.setdefault(item, candidate)
    return list(chosen.values())[:limit]

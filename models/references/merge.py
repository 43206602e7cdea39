"""Slow, obvious version of the merge of models.retrieval.quotas: one user, plain lists and names. For tests; not for serving."""

from collections.abc import Sequence

from features.outcomes import Candidate
from models.retrieval.quotas import SHORT_SHARE, weights


def merge(
    category_hits: Sequence[tuple[str, float, Sequence[tuple[str, float]]]],
    short_hits: Sequence[tuple[str, float, str]],
    limit: int,
) -> list[Candidate]:
    """At most `limit` candidates, path `category` or `short`, none twice.

    Category hits are (category, probability, its (item, score)), short hits (item, score, category). The order of hits, and
    that of the categories, makes no difference.
    """
    ordered = sorted(category_hits, key=lambda found: (-found[1], found[0]))
    lists = [[Candidate(item, score, category, "category") for item, score in hits] for category, _, hits in ordered]
    lists.append([Candidate(item, score, category, "short") for item, score, category in short_hits])
    places = []
    for number, (found, weight) in enumerate(zip(lists, [*weights([p for _, p, _ in ordered]), SHORT_SHARE], strict=True)):
        for rank, candidate in enumerate(sorted(found, key=lambda hit: (-hit.score, hit.item))):
            places.append(((rank + 0.5) / weight, candidate.item, number, candidate))
    chosen: dict[str, Candidate] = {}
    for _, item, _, candidate in sorted(places):
        chosen.setdefault(item, candidate)
    return list(chosen.values())[:limit]

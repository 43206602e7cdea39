"""Slow, obvious version of the list of models.serving.repeat: one user, one event after the other. For tests; not for serving."""

from collections.abc import Collection
from math import sqrt

from features.rows import Behaviour, UserRow
from models.encoding.inputs import newest_ts
from models.serving.repeat import SCALES_MS, WEIGHTS


def own_items(row: UserRow, there: Collection[str], exclude: Collection[str], limit: int) -> list[tuple[str, float]]:
    """At most `limit` (item, score), best first: items of the row that are `there` and not excluded."""
    events: dict[tuple[int, int], Behaviour] = {(event.ts, event.id): event for event in (*row.bought, *row.recent)}
    scores: dict[str, float] = {}
    newest: dict[str, tuple[int, int]] = {}
    for identity, event in sorted(events.items()):
        if event.item in there and event.item not in exclude:
            age = newest_ts(row) - event.ts
            scores[event.item] = scores.get(event.item, 0.0) + WEIGHTS[event.kind] / sqrt(1 + age / SCALES_MS[event.kind])
            newest[event.item] = identity
    return sorted(scores.items(), key=lambda hit: (hit[1], newest[hit[0]]), reverse=True)[: max(limit, 0)]

"""What the API answers to reads: candidate sets, features, reasons and items, out of rows of the online store."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from features.codec import CategoryRow, UserRow, unpack
from features.outcomes import Candidate, CandidatesRow, ItemRow
from features.rows import KINDS, Behaviour
from features.store import Key, OnlineStore
from features.table import ITEM, USER, USER_CANDIDATES, USER_CATEGORY

EVIDENCE = 10  # newest events shown as the reason of a candidate
Fallback = Callable[[int], Sequence[Candidate]]  # the k most popular items, best first
Answer = dict[str, Any]


class Answers:
    """Reads rows and shapes them. Each call is one or two round trips to the store. Thread-safe, as the store is.

    Args:
        store: where rows are kept.
        fallback: popular items for a user without a candidate set.

    Raises (each method):
        StoreUnavailable: the store did not answer.
        LayoutError: a row was written by a newer version.
    """

    def __init__(self, store: OnlineStore, fallback: Fallback | None = None) -> None:
        self._store = store
        self._fallback = fallback

    def candidates(self, user: str, k: int, exclude: Collection[str] = (), category: str | None = None, titles: bool = False) -> Answer:
        """The best k candidates that are not excluded, of one category where asked. A user without a row gets what is popular."""
        row = self._candidates_row(user)
        chosen = [one for one in row.candidates if one.item not in exclude and (category is None or one.category == category)][:k]
        shown = [{"item_id": one.item, "score": one.score, "category_id": one.category, "path": one.path} for one in chosen]
        if titles:
            for entry, item in zip(shown, self._items([one.item for one in chosen]), strict=True):
                entry["title"] = item.title
        return {"user": user, **_about(row), "candidates": shown}

    def features(self, user: str, category: str | None = None) -> Answer:
        """What the store holds of a user, newest first; with a category also its lifelong sequence and what of it is folded."""
        keys = [Key(USER.name, (user,))] + ([] if category is None else [Key(USER_CATEGORY.name, (user, category))])
        packed = self._read(keys)
        row = unpack(UserRow, packed[0])
        answer: Answer = {
            "user": user,
            "recent": [_shown(event) for event in reversed(row.recent)],
            "queries": [{"ts": query.ts, "text": query.text} for query in reversed(row.queries)],
            "categories": [
                {"category_id": touched.category, "count": touched.count, "last_ts": touched.last_ts} for touched in reversed(row.categories)
            ],
        }
        if category is not None:
            lifelong = unpack(CategoryRow, packed[1])
            answer["sequence"] = [_shown(event) for event in reversed(lifelong.events)]
            answer["folded"] = [
                {"start_ts": bucket.start_ms, "width_ms": bucket.width_ms, "count": bucket.count, "last_ts": bucket.last_ts}
                for bucket in reversed(lifelong.folded)
            ]
        return answer

    def why(self, user: str, item: str) -> Answer | None:
        """Why an item is among a user's candidates: the interest that found it and the events behind that; None where it is not."""
        row = self._candidates_row(user)
        rank = next((n for n, one in enumerate(row.candidates, 1) if one.item == item), None)
        if rank is None:
            return None
        candidate = row.candidates[rank - 1]
        packed = self._read([Key(USER.name, (user,)), Key(USER_CATEGORY.name, (user, candidate.category))])
        past, lifelong = unpack(UserRow, packed[0]), unpack(CategoryRow, packed[1])
        evidence = list(reversed((past.recent if candidate.path == "short" else lifelong.events)[-EVIDENCE:]))
        if candidate.path == "popular":
            evidence = []
        asked, *seen = self._items([item, *(event.item for event in evidence)])
        return {
            "user": user,
            "item_id": item,
            "title": asked.title,
            "category_id": candidate.category,
            "path": candidate.path,
            "rank": rank,
            "score": candidate.score,
            **_about(row),
            "because": _because(candidate, lifelong.count, evidence),
            "events": [{**_shown(event), "title": of.title} for event, of in zip(evidence, seen, strict=True)],
            "queries": list(dict.fromkeys(event.pair.text for event in evidence if event.pair is not None)),
        }

    def item(self, item: str) -> Answer | None:
        """What the catalogue holds of an item, None where it holds nothing."""
        [packed] = self._read([Key(ITEM.name, (item,))])
        if packed is None:
            return None
        row = unpack(ItemRow, packed)
        return {
            "item_id": item,
            "category_id": row.category,
            "title": row.title,
            "price": row.price,
            "ts": row.ts,
            "generation": row.generation,
            "deleted": row.deleted,
        }

    def _candidates_row(self, user: str) -> CandidatesRow:
        [packed] = self._read([Key(USER_CANDIDATES.name, (user,))])
        if packed is not None:
            return unpack(CandidatesRow, packed)
        return CandidatesRow(candidates=list(self._fallback(1000)) if self._fallback else [], level="popular")

    def _items(self, items: Sequence[str]) -> list[ItemRow]:
        return [unpack(ItemRow, packed) for packed in self._read([Key(ITEM.name, (item,)) for item in items])]

    def _read(self, keys: Sequence[Key]) -> list[bytes | None]:
        return [None if stored is None else stored.packed for stored in self._store.read(keys)] if keys else []


def _about(row: CandidatesRow) -> Answer:
    return {"level": row.level, "generation": row.generation, "event_ts": row.event_ts, "published_ts": row.published_ts}


def _shown(event: Behaviour) -> Answer:
    return {
        "ts": event.ts,
        "item_id": event.item,
        "category_id": event.category,
        "kind": KINDS[event.kind],
        "query": event.pair.text if event.pair else None,
    }


def _because(candidate: Candidate, count: int, evidence: Sequence[Behaviour]) -> str:
    if candidate.path == "category":
        return f"Nearest to this user's lifelong interest in category {candidate.category}, drawn from {count} events."
    if candidate.path == "short":
        return f"Nearest to what this user did last, drawn from the newest events of all categories ({len(evidence)} shown)."
    if candidate.path == "category_popular":
        return f"Popular in category {candidate.category}, where this user has {count} events; no model took part."
    return "Popular with everybody: nothing about this user took part."

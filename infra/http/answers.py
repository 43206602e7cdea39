"""The API's responses to reads: candidate sets, features, reasons and items, from rows of the online store."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from features.outcomes import Candidate, CandidatesRow, ItemRow
from features.store import OnlineStore
from features.store.reader import Event, FeatureReader, PastQuery, UserFeatures

EVIDENCE = 10  # newest events shown as a candidate's reason
MOST = 1000  # items requested from a fallback
Fallback = Callable[[int], Sequence[Candidate]]  # the k most popular items, best first
Answer = dict[str, Any]


class Answers:
    """Reads rows and formats responses; each call takes one or a few round trips to the store. Thread-safe, like the store.

    Args:
        store: the online store.
        fallback: popular items for a user without a candidate set.

    Raises (each method):
        StoreUnavailableError: the store did not answer.
        LayoutError: a row was written by a newer version.
    """

    def __init__(self, store: OnlineStore, fallback: Fallback | None = None) -> None:
        self._reader = FeatureReader(store)
        self._fallback = fallback

    def candidates(self, user: str, k: int, exclude: Collection[str] = (), category: str | None = None, titles: bool = False) -> Answer:
        """The best k candidates that are not excluded, optionally of one category. A user without a set gets popular items."""
        row = self._candidates_row(user)
        chosen = [one for one in row.candidates if one.item not in exclude and (category is None or one.category == category)][:k]
        shown: list[Answer] = [{"item_id": one.item, "score": one.score, "category_id": one.category, "path": one.path} for one in chosen]
        if titles:
            named = self._titles([one.item for one in chosen])
            shown = [{**entry, "title": named[entry["item_id"]]} for entry in shown]
        return {"user": user, **_about(row), "candidates": shown}

    def features(self, user: str, category: str | None = None) -> UserFeatures:
        """A user's features, newest first; with a category also its lifelong sequence and folds."""
        return self._reader.user(user, category)

    def why(self, user: str, item: str) -> Answer | None:
        """Why an item is a candidate of a user: the interest that found it and its events; None if it is not a candidate."""
        row = self._candidates_row(user)
        rank = next((n for n, one in enumerate(row.candidates, 1) if one.item == item), None)
        if rank is None:
            return None
        candidate = row.candidates[rank - 1]
        past = self._reader.user(user)
        lifelong = self._reader.user_category(user, candidate.category)
        evidence = _evidence(candidate, past.recent, lifelong.sequence)
        named = self._titles([item, *(event.item_id for event in evidence)])
        return {
            "user": user,
            "item_id": item,
            "title": named[item],
            "category_id": candidate.category,
            "path": candidate.path,
            "rank": rank,
            "score": candidate.score,
            **_about(row),
            "because": _because(candidate, lifelong.count),
            "events": [{**msgspec.to_builtins(event), "title": named[event.item_id]} for event in evidence],
            "queries": _queries(candidate, past.queries, evidence),
        }

    def items(self, items: Sequence[str]) -> list[Answer]:
        """These items of the catalogue, in the given order, without unknown ones."""
        return [_item(item, row) for item, row in zip(items, self._reader.item(items), strict=True) if row is not None]

    def _candidates_row(self, user: str) -> CandidatesRow:
        row = self._reader.candidates(user)
        if row is None:
            row = CandidatesRow(candidates=list(self._fallback(MOST)) if self._fallback else [], level="popular")
        return row

    def _titles(self, items: Sequence[str]) -> dict[str, str]:
        """The title of each item, empty for unknown items."""
        distinct = list(dict.fromkeys(items))
        rows = self._reader.item(distinct) if distinct else []
        return {item: (row or ItemRow()).title for item, row in zip(distinct, rows, strict=True)}


def _about(row: CandidatesRow) -> Answer:
    return {"level": row.level, "generation": row.generation, "event_ts": row.event_ts, "published_ts": row.published_ts}


def _item(item: str, row: ItemRow) -> Answer:
    return {
        "item_id": item,
        "category_id": row.category,
        "title": row.title,
        "price": row.price,
        "ts": row.ts,
        "generation": row.generation,
        "deleted": row.deleted,
    }


def _evidence(candidate: Candidate, recent: Sequence[Event], lifelong: Sequence[Event]) -> Sequence[Event]:
    """The newest events behind the candidate."""
    if candidate.path in ("popular", "query"):
        return []
    if candidate.path == "repeat":
        every = sorted({*recent, *lifelong}, key=lambda event: -event.ts)
        return [event for event in every if event.item_id == candidate.item][:EVIDENCE]
    return (recent if candidate.path == "short" else lifelong)[:EVIDENCE]


def _queries(candidate: Candidate, searched: Sequence[PastQuery], evidence: Sequence[Event]) -> list[str]:
    """The newest query if its search found the item, else the queries that the events followed."""
    if candidate.path == "query":
        return [query.text for query in searched[:1]]
    return list(dict.fromkeys(event.query for event in evidence if event.query is not None))


def _because(candidate: Candidate, count: int) -> str:
    if candidate.path == "category":
        return f"Near this user's lifelong interest in category {candidate.category}, drawn from {_events(count)}."
    if candidate.path == "short":
        return "Near what this user did last, drawn from the newest events of all categories."
    if candidate.path == "repeat":
        return "The user has interacted with it before: ranked by frequency, recency and kind of event."
    if candidate.path == "query":
        return "Near the words that this user searched for last, without a click since."
    if candidate.path == "category_popular":
        return f"Popular in category {candidate.category}, where this user has {_events(count)}; no model was used."
    return "Popular with everybody; not based on this user."


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count} events"

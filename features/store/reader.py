"""Stored features of a user or an item as structs; the CLI and the HTTP API print them as JSON."""

from collections.abc import Iterable, Sequence

import msgspec

from features.codec import Row, unpack
from features.errors import UnreadableRowError
from features.fold import Bucket
from features.outcomes import CandidatesRow, InterestsRow, ItemRow
from features.rows import KINDS, Behaviour, CategoryRow, UserRow
from features.store import Key, OnlineStore, Stored
from features.table import ITEM, USER, USER_CANDIDATES, USER_CATEGORY, USER_INTERESTS

SHOWN_QUERIES = 64


class Event(msgspec.Struct, frozen=True):
    """An event of a user at `ts` (ms); `query` is the text of the query it followed, if any."""

    ts: int
    item_id: str
    category_id: str
    kind: str
    query: str | None


class PastQuery(msgspec.Struct, frozen=True):
    """A query of a user, normalised, at `ts` (ms)."""

    ts: int
    text: str


class CategoryCount(msgspec.Struct, frozen=True):
    """A category that a user touched: all events ever, time (ms) of the newest."""

    category_id: str
    count: int
    last_ts: int


class Folded(msgspec.Struct, frozen=True):
    """Events older than the kept sequence: their number, by kind, between `start_ts` and `start_ts + width_ms` (ms)."""

    start_ts: int
    width_ms: int
    count: int
    clicks: int
    carts: int
    favourites: int
    orders: int
    last_ts: int


class UserFeatures(msgspec.Struct, frozen=True):
    """All features of a user, newest first; `sequence` and `folded` only if a category was requested."""

    user: str
    recent: list[Event]
    queries: list[PastQuery]
    categories: list[CategoryCount]
    category: str | msgspec.UnsetType = msgspec.UNSET
    sequence: list[Event] | msgspec.UnsetType = msgspec.UNSET
    folded: list[Folded] | msgspec.UnsetType = msgspec.UNSET


class CategoryFeatures(msgspec.Struct, frozen=True):
    """The lifelong sequence of one category of a user, newest first. `count`: all events ever, kept and folded."""

    user: str
    category: str
    count: int
    sequence: list[Event]
    folded: list[Folded]


class FeatureReader:
    """Reads rows for display. An unknown id gives empty lists, or None in methods that return a single row.

    Every method raises `features.store.StoreUnavailableError` if the store does not answer, and
    `features.codec.LayoutError` if the row is damaged or was written by another version of Everlong.
    """

    def __init__(self, store: OnlineStore) -> None:
        self._store = store

    def user(self, user_id: str, category: str | None = None) -> UserFeatures:
        """Features of a user and, if given, of one of their categories; one read."""
        keys = [Key(USER.name, (user_id,))] + ([Key(USER_CATEGORY.name, (user_id, category))] if category is not None else [])
        stored = self._store.read(keys)
        row = _unpacked(UserRow, _packed(stored[0]))
        features = UserFeatures(
            user=user_id,
            recent=_events(row.recent),
            queries=[PastQuery(query.ts, query.text) for query in reversed(row.queries[-SHOWN_QUERIES:])],
            categories=[CategoryCount(seen.category, seen.count, seen.last_ts) for seen in reversed(row.categories)],
        )
        if category is None:
            return features
        kept = _unpacked(CategoryRow, _packed(stored[1]))
        return msgspec.structs.replace(features, category=category, sequence=_events(kept.events), folded=_buckets(kept.folded))

    def user_category(self, user_id: str, category: str) -> CategoryFeatures:
        """The sequence of one category of a user."""
        row = _unpacked(CategoryRow, _packed(self._one(Key(USER_CATEGORY.name, (user_id, category)))))
        return CategoryFeatures(user_id, category, row.count, _events(row.events), _buckets(row.folded))

    def item(self, item_ids: Iterable[str]) -> list[ItemRow | None]:
        """The rows of items in the order of the ids, None for an unknown item; one read."""
        stored = self._store.read([Key(ITEM.name, (item_id,)) for item_id in item_ids])
        return [_unpacked(ItemRow, row.packed) if row is not None else None for row in stored]

    def interests(self, user_id: str) -> InterestsRow | None:
        """The interest vectors of a user."""
        stored = self._one(Key(USER_INTERESTS.name, (user_id,)))
        return _unpacked(InterestsRow, stored.packed) if stored is not None else None

    def candidates(self, user_id: str) -> CandidatesRow | None:
        """The newest candidate set of a user."""
        stored = self._one(Key(USER_CANDIDATES.name, (user_id,)))
        return _unpacked(CandidatesRow, stored.packed) if stored is not None else None

    def _one(self, key: Key) -> Stored | None:
        return self._store.read([key])[0]


def _unpacked(kind: type[Row], packed: bytes | None) -> Row:
    try:
        return unpack(kind, packed)
    except UnreadableRowError as error:
        raise UnreadableRowError(f"{error}; the next event of the user or item makes the row readable again") from error


def _packed(stored: Stored | None) -> bytes | None:
    return stored.packed if stored is not None else None


def _events(kept: Sequence[Behaviour]) -> list[Event]:
    return [
        Event(event.ts, event.item, event.category, KINDS[event.kind], event.pair.text if event.pair is not None else None)
        for event in reversed(kept)
    ]


def _buckets(folded: Sequence[Bucket]) -> list[Folded]:
    return [
        Folded(
            start_ts=bucket.start_ms,
            width_ms=bucket.width_ms,
            count=bucket.count,
            clicks=bucket.clicks,
            carts=bucket.carts,
            favourites=bucket.favourites,
            orders=bucket.orders,
            last_ts=bucket.last_ts,
        )
        for bucket in reversed(folded)
    ]

"""What our workers say to each other, as JSON values of the topics `refresh`, `item-codes`, `candidates` and `events.dlq`."""

import msgspec


class RefreshRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `refresh`, key user id: rows of this user changed. `version` is that of the rows (epoch and offsets).

    `event_ts` (ms) is the newest event applied, `sent_ms` the wall clock (ms) when its producer sent it.
    """

    user_id: str
    categories: list[str]
    version: tuple[int, int, int, int]
    event_ts: int
    sent_ms: int


class ItemCode(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `item-codes`, key item id: what every refresh worker's index holds of an item. No value: the item is gone.

    `vector` is little-endian float32 (d,) and `code` uint8 (P,), both base64 in JSON. `sent_ms` is the wall clock (ms) when
    the item's producer sent it; 0: not said, or encoded once more.
    """

    item_id: str
    category_id: str
    vector: bytes
    code: bytes
    generation: str
    ts: int
    sent_ms: int = 0


class PublishedCandidate(msgspec.Struct, frozen=True, rename={"item": "item_id", "category": "category_id"}):
    """A candidate as JSON names it: item_id, score, category_id, path (see features.outcomes.Candidate)."""

    item: str
    score: float
    category: str
    path: str


class CandidateSet(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `candidates`, key user id: the newest set of a user, best first. Fields as in features.outcomes.CandidatesRow."""

    user_id: str
    candidates: list[PublishedCandidate]
    level: str
    generation: str
    event_ts: int
    published_ts: int


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `events.dlq`: an event that was refused, with its original bytes (base64 in JSON)."""

    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    ts: int

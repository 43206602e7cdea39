"""What our workers say to each other, as JSON values of the topics `refresh`, `item-codes`, `codebooks`, `candidates` and `events.dlq`."""

from hashlib import blake2b
from typing import Literal

import msgspec

LEVELS = ("full", "short", "category_popular", "popular")  # of a candidate set, from the best to the last fallback


class RefreshRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `refresh`, key user id: rows of this user changed. `version` is that of the rows (epoch and offsets).

    `event_ts` (ms) is the newest event applied, `sent_ms` the wall clock (ms) when its producer sent it; 0: answered before, but
    short, and handed on by a worker that owed the full answer.
    """

    user_id: str
    categories: list[str]
    version: tuple[int, int, int, int]
    event_ts: int
    sent_ms: int


class ItemCode(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `item-codes`, key item id: what every refresh worker's index holds of an item. No value: the item is gone.

    `vector` is little-endian float32 (d,) and `code` uint8 (P,), both base64 in JSON. `generation` is that of the bundle, so of
    the vector, `codebook` that of the code; empty: the bundle's own. `parts`: little-endian float32 (D,) that the code stands
    for, empty: the vector itself. `sent_ms` is the wall clock (ms) when the item's producer sent it; 0: not said, or encoded
    once more.
    """

    item_id: str
    category_id: str
    vector: bytes
    code: bytes
    generation: str
    ts: int
    sent_ms: int = 0
    codebook: str = ""
    price: float = 0.0
    available: bool = True
    parts: bytes = b""


class Recode(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `item-codes`, key 0xFF and item id (so it hides no ItemCode), in the partition of the item: its code under `codebook`.

    A refresh publishes it for an item whose code changed. It holds for the vector of which `of` is the digest (see `digest`), and
    says nothing of an item that has another vector by now.
    """

    item_id: str
    generation: str
    codebook: str
    code: bytes
    of: bytes


RECODE = b"\xff"  # no UTF-8 text begins so


def digest(vector: bytes) -> bytes:
    """Eight bytes that tell vectors (little-endian float32) apart."""
    return blake2b(vector, digest_size=8).digest()


How = Literal["encode", "warm", "cold"]


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `codebooks`, key `generation:ID`: a codebook, and how far its codes are published.

    `centroids` is little-endian float32 of `shape` (P, C, w); `own` the generation that the bundle brought, `parent` the one that
    this was compared with. Offsets are of
    `item-codes`, by partition: an item whose last record lies below `begins` and that has no Recode of this generation keeps the
    bytes of its code of `parent`; once `ends` is there, all changed codes lie below it. Without `ends` nobody may serve it.
    `baseline` are the figures of drift right after it was made.
    """

    generation: str
    bundle: str
    own: str
    parent: str
    centroids: bytes
    shape: tuple[int, int, int]
    how: How
    started_ms: int
    finished_ms: int = 0
    items: int = 0
    changed: int = 0
    begins: dict[int, int] = {}
    ends: dict[int, int] | None = None
    baseline: dict[str, float] = {}


class CurrentCodes(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `codebooks`, key `current:BUNDLE`: the generation to encode with and to serve. `why`: refresh or rollback."""

    bundle: str
    generation: str
    previous: str
    since_ms: int
    why: Literal["refresh", "rollback"]


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `codebooks`, key `drift:BUNDLE`: the last measurement of the codes in use, and what the policy says to it.

    `own` is the generation that the bundle brought. `figures` are those of stream.codes.keeper.figures.
    """

    bundle: str
    own: str
    generation: str
    measured_ms: int
    items: int
    figures: dict[str, float]
    action: Literal["none", "encode", "warm", "cold"]
    reason: str
    automatic: bool


class CodesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `codebooks`, key `request`: what a person asks for. `how` is of a refresh, `to` the generation of a rollback; empty: choose."""

    id: str
    what: Literal["refresh", "rollback"]
    asked_ms: int
    how: Literal["auto", "encode", "warm", "cold"] = "auto"
    to: str = ""


class CodesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `codebooks`, key `answer`: how far the request `id` is. `done` of `total` changed codes are published."""

    id: str
    state: Literal["working", "done", "refused", "failed"]
    detail: str
    at_ms: int
    generation: str = ""
    done: int = 0
    total: int = 0


class PublishedCandidate(msgspec.Struct, frozen=True, gc=False, rename={"item": "item_id", "category": "category_id"}):
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
    """Topic `events.dlq`: an event that was refused, with its original bytes (base64 in JSON).

    `cut_bytes`: how many of key and value are missing, of each that was too long to be kept the end; 0: both are whole.
    """

    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    ts: int
    cut_bytes: int = 0

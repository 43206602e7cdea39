"""What our workers say to each other, as JSON values of the topics `refresh`, `item-codes`, `codebooks`, `candidates` and `events.dlq`."""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Annotated, Literal, NamedTuple, TypeVar

import msgspec

from features.events import Id, Milliseconds

Message = TypeVar("Message", bound=msgspec.Struct)
LEVELS = ("full", "short", "category_popular", "popular")  # of a candidate set, from the best to the last fallback
MOST_BYTES = 900 * 1024  # of a message's value: Kafka's default limit is 1 MiB, with the key, the headers and the framing
MOST_CATEGORIES = 500  # of one request: 255 KiB of the longest ids
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Size = Annotated[int, msgspec.Meta(ge=1, le=2**20)]


class Skipped(NamedTuple):
    """Why the value of a record of an internal topic is not used: a short reason, and a sentence for a person."""

    reason: Literal["empty", "not_utf8", "bad_json", "wrong_shape", "wrong_key", "wrong_width"]
    detail: str


def decode(kind: type[Message], value: bytes | None) -> Message | Skipped:
    """The message of a record's value, or why it is none. Never raises, whatever the bytes."""
    if not value:
        return Skipped("empty", "the record has no value")
    try:
        decoder = _decoders.get(kind) or _decoders.setdefault(kind, msgspec.json.Decoder(kind))
        return decoder.decode(value)
    except msgspec.ValidationError as error:
        return Skipped("wrong_shape", _short(error))
    except UnicodeDecodeError as error:
        return Skipped("not_utf8", _short(error))
    except Exception as error:  # malformed JSON, depth, and whatever else bytes can do to a decoder
        return Skipped("bad_json", _short(error))


_decoders: dict[type[msgspec.Struct], msgspec.json.Decoder] = {}


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


class RefreshRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `refresh`, key user id: rows of this user changed. `version` is that of the rows (epoch and offsets).

    A message names at most MOST_CATEGORIES categories (see `split`); more of them are several messages, and mean the same.

    `event_ts` (ms) is the newest event applied, `sent_ms` the wall clock (ms) when its producer sent it; 0: answered before, but
    short, and handed on by a worker that owed the full answer.
    """

    user_id: Id
    categories: list[Id]
    version: tuple[Offset, Offset, Offset, Offset]
    event_ts: Milliseconds
    sent_ms: Milliseconds


def split(request: RefreshRequest) -> Iterator[RefreshRequest]:
    """The request as messages of bounded size. Whoever coalesces them has the request again."""
    for at in range(0, max(1, len(request.categories)), MOST_CATEGORIES):
        yield msgspec.structs.replace(request, categories=request.categories[at : at + MOST_CATEGORIES])


class ItemCode(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `item-codes`, key item id: what every refresh worker's index holds of an item. No value: the item is gone.

    `vector` is little-endian float32 (d,) and `code` uint8 (P,), both base64 in JSON. `generation` is that of the bundle, so of
    the vector, `codebook` that of the code; empty: the bundle's own. `parts`: little-endian float32 (D,) that the code stands
    for, empty: the vector itself. `sent_ms` is the wall clock (ms) when the item's producer sent it; 0: not said, or encoded
    once more.
    """

    item_id: Id
    category_id: Id
    vector: bytes
    code: bytes
    generation: str
    ts: Milliseconds
    sent_ms: Milliseconds = 0
    codebook: str = ""
    price: float = 0.0
    available: bool = True
    parts: bytes = b""


class Recode(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `item-codes`, key 0xFF and item id (so it hides no ItemCode), in the partition of the item: its code under `codebook`.

    A refresh publishes it for an item whose code changed. It holds for the vector of which `of` is the digest (see `digest`), and
    says nothing of an item that has another vector by now.
    """

    item_id: Id
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
    shape: tuple[Size, Size, Size]
    how: How
    started_ms: Milliseconds
    finished_ms: Milliseconds = 0
    items: Offset = 0
    changed: Offset = 0
    begins: dict[int, Offset] = {}
    ends: dict[int, Offset] | None = None
    baseline: dict[str, float] = {}


class CurrentCodes(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `codebooks`, key `current:BUNDLE`: the generation to encode with and to serve. `why`: refresh or rollback."""

    bundle: str
    generation: str
    previous: str
    since_ms: Milliseconds
    why: Literal["refresh", "rollback"]


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `codebooks`, key `drift:BUNDLE`: the last measurement of the codes in use, and what the policy says to it.

    `own` is the generation that the bundle brought. `figures` are those of stream.codes.code_manager.figures.
    """

    bundle: str
    own: str
    generation: str
    measured_ms: Milliseconds
    items: Offset
    figures: dict[str, float]
    action: Literal["none", "encode", "warm", "cold"]
    reason: str
    automatic: bool


class CodesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `codebooks`, key `request`: what a person asks for. `how` is of a refresh, `to` the generation of a rollback; empty: choose."""

    id: str
    what: Literal["refresh", "rollback"]
    asked_ms: Milliseconds
    how: Literal["auto", "encode", "warm", "cold"] = "auto"
    to: str = ""


class CodesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `codebooks`, key `answer`: how far the request `id` is. `done` of `total` changed codes are published."""

    id: str
    state: Literal["working", "done", "refused", "failed"]
    detail: str
    at_ms: Milliseconds
    generation: str = ""
    done: Offset = 0
    total: Offset = 0


class PublishedCandidate(msgspec.Struct, frozen=True, gc=False, rename={"item": "item_id", "category": "category_id"}):
    """A candidate as JSON names it: item_id, score, category_id, path (see features.outcomes.Candidate)."""

    item: str
    score: float
    category: str
    path: str


_LONGEST_CANDIDATE = 1300  # bytes of JSON: two ids of 128 characters of 4 bytes, and the rest


def fitting(candidates: list[PublishedCandidate]) -> list[PublishedCandidate]:
    """The candidates, less the last ones where their message would be longer than MOST_BYTES."""
    if len(candidates) * _LONGEST_CANDIDATE <= MOST_BYTES:
        return candidates
    bytes_left = MOST_BYTES - 4 * _LONGEST_CANDIDATE  # the other fields of the set
    for at, candidate in enumerate(candidates):
        bytes_left -= len(msgspec.json.encode(candidate)) + 1
        if bytes_left < 0:
            return candidates[:at]
    return candidates


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
    partition: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    offset: Offset
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    ts: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    cut_bytes: Offset = 0

"""The messages of the internal topics (`refresh`, `item-codes`, `codebooks`, `candidates`, `events.dlq`), as JSON, and our record headers.

`bundle` is the generation of a bundle, `codebook` that of a codebook, everywhere.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from time import time
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec

from features.events import Id, Milliseconds
from stream.kafka.topics import TopicSpec

log = logging.getLogger(__name__)

Message = TypeVar("Message", bound=msgspec.Struct)
LEVELS = ("full", "short", "category_popular", "popular")  # of a candidate set, from the best to the last fallback
MOST_BYTES = 900 * 1024  # of a message's value: Kafka's default limit is 1 MiB, with the key, the headers and the framing
MOST_CATEGORIES = 500  # of one request: 255 KiB of the longest ids
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Size = Annotated[int, msgspec.Meta(ge=1, le=2**20)]


class Skipped(NamedTuple):
    """Why a record of an internal topic cannot be used: a short reason, and a sentence for a person."""

    reason: Literal["empty", "not_utf8", "bad_json", "wrong_shape", "wrong_key", "wrong_width"]
    detail: str


def decode(kind: type[Message], value: bytes | None) -> Message | Skipped:
    """The message of a record's value, or why it is invalid. Never raises, whatever the bytes."""
    if not value:
        return Skipped("empty", "the record has no value")
    try:
        decoder = _decoders.get(kind) or _decoders.setdefault(kind, msgspec.json.Decoder(kind))
        found: Message | Skipped = decoder.decode(value)
        return found
    except msgspec.ValidationError as error:
        return Skipped("wrong_shape", _short(error))
    except UnicodeDecodeError as error:
        return Skipped("not_utf8", _short(error))
    except Exception as error:  # noqa: BLE001 - malformed JSON, depth, and whatever else bytes can do to a decoder
        return Skipped("bad_json", _short(error))


_decoders: dict[type[msgspec.Struct], msgspec.json.Decoder[Any]] = {}


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


class Skips:
    """Counts the invalid records of internal topics, by topic and reason, and logs the first of each kind. Thread-safe.

    Args:
        count: called with the topic's name (without the prefix) and the reason of each record.
    """

    def __init__(self, count: Callable[[str, str], object] = lambda topic, reason: None) -> None:
        self._count = count
        self._logged: set[tuple[str, str]] = set()

    def add(self, record: Any, topic: TopicSpec, skipped: Skipped) -> None:
        """A record of this topic is skipped."""
        kind = topic.name, skipped.reason
        self._count(*kind)
        if kind not in self._logged:
            self._logged.add(kind)
            log.error(
                "%s/%d offset %d is not a valid Everlong message (%s: %s) and is skipped; further ones of this kind are only counted",
                record.topic,
                record.partition,
                record.offset,
                skipped.reason,
                skipped.detail,
            )


class RefreshRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `refresh`, key user id: rows of this user changed. `log_position` is that of the rows: epoch, and offsets of the topics.

    A message holds at most MOST_CATEGORIES categories (see `split`); more of them are several messages, with the same meaning.

    `event_ts` (ms) is the newest event applied; `sent_ms` (wall clock, ms) is when its producer sent it. 0: the user has a degraded
    candidate set, and a worker requeued the full refresh.
    """

    user_id: Id
    categories: list[Id]
    log_position: tuple[Offset, Offset, Offset, Offset]
    event_ts: Milliseconds
    sent_ms: Milliseconds


def split(request: RefreshRequest) -> Iterator[RefreshRequest]:
    """The request as messages of bounded size; coalesced, they are the request again."""
    for at in range(0, max(1, len(request.categories)), MOST_CATEGORIES):
        yield msgspec.structs.replace(request, categories=request.categories[at : at + MOST_CATEGORIES])


class ItemCode(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `item-codes`, key item id: the item as every index holds it. No value: the item is deleted.

    `vector` is little-endian float32 (d,) of this bundle, and `code` uint8 (P,), both base64 in JSON. `codebook` is that of the code;
    empty: the bundle's own. `parts`: little-endian float32 (D,), what the code quantises; empty: the vector itself. `sent_ms` (wall clock,
    ms) is when the item's producer sent it; 0: unknown, or encoded again.
    """

    item_id: Id
    category_id: Id
    vector: bytes
    code: bytes
    bundle: str
    ts: Milliseconds
    sent_ms: Milliseconds = 0
    codebook: str = ""
    price: float = 0.0
    available: bool = True
    parts: bytes = b""


class Recode(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `item-codes`, key 0xFF and item id (so it replaces no ItemCode), in the partition of the item: its code under `codebook`.

    A refresh of codes publishes it for an item whose code changed. It is valid for the vector whose digest is `of`, and is ignored where
    the item has another vector by now.
    """

    item_id: Id
    bundle: str
    codebook: str
    code: bytes
    of: bytes


RECODE = b"\xff"  # no UTF-8 text begins so


def digest(vector: bytes) -> bytes:
    """Eight bytes that tell vectors (little-endian float32) apart."""
    return blake2b(vector, digest_size=8).digest()


How = Literal["encode", "warm", "cold"]


class CodebookRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `codebooks`, key `codebook:NAME`: a codebook, and how far its codes are published.

    `centroids` is little-endian float32 of `shape` (P, C, w); `own` is the bundle's own codebook, `parent` the one that this was compared
    with. Offsets are of `item-codes`, by partition: an item whose last record lies below `begins`, and that has no Recode of this codebook,
    keeps the bytes of its code under `parent`. Once `ends` is there, all changed codes lie below it; without `ends` no index serves it.
    `baseline` are the figures of drift right after training.
    """

    codebook: str
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
    """Topic `codebooks`, key `current:BUNDLE`: the codebook to encode with and to serve, and the one before it."""

    bundle: str
    codebook: str
    previous: str
    since_ms: Milliseconds
    why: Literal["refresh", "rollback"]


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `codebooks`, key `drift:BUNDLE`: the last measurement of the codes in use, and the policy's decision.

    `own` is the bundle's own codebook. `figures` are those of stream.codes.codebook_publisher.figures.
    """

    bundle: str
    own: str
    codebook: str
    measured_ms: Milliseconds
    items: Offset
    figures: dict[str, float]
    action: Literal["none", "encode", "warm", "cold"]
    reason: str
    automatic: bool


class CodesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `codebooks`, key `request`: a person's request. `to` is the codebook of a rollback; empty: the previous one."""

    id: str
    what: Literal["refresh", "rollback"]
    asked_ms: Milliseconds
    how: Literal["auto", "encode", "warm", "cold"] = "auto"
    to: str = ""


class CodesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `codebooks`, key `answer`: the state of the request `id`. `done` of `total` changed codes are published."""

    id: str
    state: Literal["working", "done", "refused", "failed"]
    detail: str
    at_ms: Milliseconds
    codebook: str = ""
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


SENT_HEADER = "sent_ms"
AGAIN_HEADER: tuple[str, bytes] = ("again", b"1")  # of an item's state that a catalogue worker published again
LONGEST_NUMBER = 16  # digits of a header; int() refuses thousands of them
LATEST_MS = 2**52


def sent_header(now_ms: int | None = None) -> tuple[str, bytes]:
    """The header with the time at which a record was sent (wall clock, ms), now if not given. Latencies are measured from it."""
    return SENT_HEADER, b"%d" % (int(time() * 1000) if now_ms is None else now_ms)


def sent_ms(headers: Sequence[tuple[str, bytes | None]] | None, default: int) -> int:
    """The time at which a record was sent (wall clock, ms) by its headers; `default` without a valid header."""
    for name, value in headers or ():
        if name == SENT_HEADER and value is not None and value.isdigit() and len(value) < LONGEST_NUMBER:
            return int(value)
    return min(max(default, 0), LATEST_MS)  # a producer may have stamped its record with anything

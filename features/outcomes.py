"""Rows that are computed, not merged: items, queries, interests and candidate sets. Packed as features.codec packs rows."""

from typing import Annotated

import msgspec

from features.events import Milliseconds


class ItemRow(msgspec.Struct, array_like=True, frozen=True):
    """View `item`: the state that counts (features.item_states), and what a bundle makes of it.

    `vector` is little-endian float32 (d,), `code` uint8 (P,): both of `generation`. `image` and `text` are the given embeddings,
    little-endian float32, empty where there are none. Of a deleted item only `ts` is kept.
    """

    version: int = 1
    category: str = ""
    title: str = ""
    price: float = 0.0
    vector: bytes = b""
    code: bytes = b""
    generation: str = ""
    ts: int = 0
    deleted: bool = False
    attributes: dict[str, str] = {}
    image: bytes = b""
    text: bytes = b""
    inferred: bool = False


class QueryRow(msgspec.Struct, array_like=True, frozen=True):
    """View `query`: normalised text and the hashes of its words."""

    version: int = 1
    text: str = ""
    keywords: list[int] = []


class InterestsRow(msgspec.Struct, array_like=True, frozen=True):
    """View `user_interests`: `vectors` is little-endian float32 (K+1, d); the category of the short interest is empty."""

    version: int = 1
    categories: list[str] = []
    vectors: bytes = b""
    dim: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0
    generation: str = ""


class Candidate(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An item of a candidate set. `path` says which list gave it: category (a long interest found it), short, repeat (the user
    had it before), query (a live search), category_popular or popular (docs/retrieval.md). Scores of different paths are not comparable.
    """

    item: str
    score: float
    category: str
    path: str


class CandidatesRow(msgspec.Struct, array_like=True, frozen=True):
    """View `user_candidates`; the topic `candidates` says the same as JSON (stream.kafka.messages.CandidateSet).

    `level`: full, short, category_popular or popular. `event_ts` (ms) is the newest event answered, `published_ts` the
    wall clock (ms) of publication.
    """

    version: int = 1
    candidates: list[Candidate] = []
    level: str = "full"
    generation: str = ""
    event_ts: Milliseconds = 0
    published_ts: Milliseconds = 0

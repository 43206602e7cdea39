"""Rows that are computed, not merged: items, queries, interests and candidate sets. features.codec packs them."""

from typing import Annotated

import msgspec

from features.events import Milliseconds


class ItemRow(msgspec.Struct, array_like=True, frozen=True):
    """View `item`: the valid state (features.item_states), and the vector and code that a bundle computes from it.

    `vector` is little-endian float32 (d,), `code` uint8 (P,): both of `generation`. `image` and `text` are the given embeddings,
    little-endian float32, empty if absent. A deleted item keeps only `ts`.
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


class InterestsRow(msgspec.Struct, array_like=True, frozen=True):
    """View `user_interests`: `vectors` is little-endian float32 (K+1, d); the category of the short interest is empty."""

    version: int = 1
    categories: list[str] = []
    vectors: bytes = b""
    dim: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0
    generation: str = ""


class Candidate(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An item of a candidate set. `path` names its list: category (found by a long interest), short, repeat (the user interacted
    with it before), query (found by a live search), category_popular or popular (docs/retrieval.md). Scores of different paths are not
    comparable.
    """

    item: str
    score: float
    category: str
    path: str


class CandidatesRow(msgspec.Struct, array_like=True, frozen=True):
    """View `user_candidates`; the topic `candidates` carries the same as JSON (stream.kafka.messages.CandidateSet).

    `level`: full, short, category_popular or popular. `event_ts` (ms) is the newest event taken into account, `published_ts` the
    wall clock (ms) of publication.
    """

    version: int = 1
    candidates: list[Candidate] = []
    level: str = "full"
    generation: str = ""
    event_ts: Milliseconds = 0
    published_ts: Milliseconds = 0

"""The table of features: every view, its entities, and each field's name, type, unit and length.

Feast definitions, docs/features.md and the schema hash of a bundle are generated from it.
"""

from hashlib import blake2b
from typing import NamedTuple


class Field(NamedTuple):
    """A field that a Feast client receives. `type`: int64, float32 or string; `length`: 0 for a scalar, else the most elements."""

    name: str
    type: str
    length: int
    unit: str
    description: str


class RowView(NamedTuple):
    """A view of the online store: one packed row per entity, unpacked into `fields`, oldest first."""

    name: str
    entities: tuple[str, ...]
    written_by: str
    description: str
    fields: tuple[Field, ...]


PACKED = "row"  # the packed bytes of a row, and the log position that guards it: the two stored fields of every view
APPLIED = "applied"

USER = RowView(
    "user",
    ("user_id",),
    "ingest",
    "The newest events of all categories, the newest queries and purchases, and all categories with events.",
    (
        Field("recent_ts", "int64", 100, "ms", "time of each of the newest events, oldest first"),
        Field("recent_item", "string", 100, "id", "item of each event"),
        Field("recent_category", "string", 100, "id", "category of each event"),
        Field("recent_kind", "string", 100, "", "click, cart, favourite or order"),
        Field("recent_query", "string", 100, "text", "text of the query that each event followed, or empty"),
        Field("query_ts", "int64", 512, "ms", "time of each of the newest queries"),
        Field("query_text", "string", 512, "text", "normalised text of each query"),
        Field("category_id", "string", 1024, "id", "categories with events, by time of their newest event"),
        Field("category_last_ts", "int64", 1024, "ms", "time of the newest event in each category"),
        Field("category_count", "int64", 1024, "events", "number of all events in each category"),
        Field("bought_ts", "int64", 256, "ms", "time of each of the newest purchases"),
        Field("bought_item", "string", 256, "id", "item of each purchase"),
    ),
)
USER_CATEGORY = RowView(
    "user_category",
    ("user_id", "category"),
    "ingest",
    "A user's lifelong sequence in one category, as query-item pairs.",
    (
        Field("ts", "int64", 512, "ms", "time of each kept event"),
        Field("item", "string", 512, "id", "item of each event"),
        Field("kind", "string", 512, "", "click, cart, favourite or order"),
        Field("query", "string", 512, "text", "text of the query that each event followed, or empty"),
        Field("folded_start_ts", "int64", 128, "ms", "start of each time bucket of older events"),
        Field("folded_width", "int64", 128, "ms", "width of each bucket"),
        Field("folded_count", "int64", 128, "events", "events in each bucket"),
        Field("count", "int64", 0, "events", "number of all events, kept and folded"),
    ),
)
USER_INTERESTS = RowView(
    "user_interests",
    ("user_id",),
    "refresh",
    "Vectors of K category interests and of the short interest.",
    (
        Field("interest_category", "string", 64, "id", "category of each vector; empty for the short interest"),
        Field("interest_vector", "float32", 64 * 256, "", "the vectors, concatenated"),
        Field("interest_dim", "int64", 0, "", "length of one vector"),
        Field("interest_generation", "string", 0, "", "generation of the bundle that computed the vectors"),
    ),
)
USER_CANDIDATES = RowView(
    "user_candidates",
    ("user_id",),
    "refresh",
    "The newest candidate set.",
    (
        Field("candidate_item", "string", 1000, "id", "items, best first"),
        Field("candidate_score", "float32", 1000, "", "score of each"),
        Field("candidate_category", "string", 1000, "id", "category of each"),
        Field("candidate_path", "string", 1000, "", "list of each: category, short, repeat, query, category_popular, popular"),
        Field("candidate_level", "string", 0, "", "fallback level: full, short, category_popular, popular"),
        Field("candidate_generation", "string", 0, "", "generation of the bundle that computed the set"),
        Field("candidate_event_ts", "int64", 0, "ms", "time of the newest event that the set takes into account"),
        Field("candidate_published_ts", "int64", 0, "ms", "wall clock at publication"),
    ),
)
ITEM = RowView(
    "item",
    ("item_id",),
    "catalogue",
    "An item's state, vector and code.",
    (
        Field("item_category", "string", 0, "id", "category"),
        Field("item_title", "string", 0, "text", "title"),
        Field("item_price", "float32", 0, "currency", "price"),
        Field("item_vector", "float32", 256, "", "vector that searches compare with interests"),
        Field("item_code", "int64", 64, "", "PQ code, one number per subspace"),
        Field("item_generation", "string", 0, "", "generation of the bundle (and codebook) of vector and code"),
        Field("item_deleted", "int64", 0, "", "1 if the item was deleted"),
    ),
)
VIEWS = (USER, USER_CATEGORY, USER_INTERESTS, USER_CANDIDATES, ITEM)


def schema_hash() -> str:
    """16 hex digits that change with what a model reads: names, types, lengths and units of the views that ingest and catalogue write.

    Descriptions do not count. A bundle carries the hash that it was trained with.
    """
    read = [
        (view.name, view.entities, [(field.name, field.type, field.length, field.unit) for field in view.fields])
        for view in VIEWS
        if view.written_by != "refresh"
    ]
    return blake2b(repr(read).encode(), digest_size=8).hexdigest()

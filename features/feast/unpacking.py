"""Unpacks a view's row into the fields that features.table declares: plain lists, strings and numbers.

The on-demand views (features.feast.definitions) call `columns` in a Feast client.
"""

from array import array
from collections.abc import Callable, Sequence
from sys import byteorder
from typing import Any

from features import table
from features.codec import unpack
from features.outcomes import CandidatesRow, InterestsRow, ItemRow
from features.rows import KINDS, CategoryRow, Pair, UserRow

Value = list[str] | list[int] | list[float] | str | int | float


def fields(view: str, packed: bytes | None) -> dict[str, Value]:
    """The fields of a view's row by name, in the order of features.table; None is the empty row: empty lists, '' and 0.

    Raises:
        KeyError: the view does not exist.
        features.codec.LayoutError: the bytes are not a row of this view.
    """
    names, values = _UNPACKERS[view]
    return dict(zip(names, values(packed), strict=True))


def columns(view: str, rows: Sequence[bytes | None]) -> dict[str, list[Value]]:
    """The fields of many rows of one view: one list per field, with one value per row."""
    names, _ = _UNPACKERS[view]
    unpacked = [fields(view, packed) for packed in rows]
    return {name: [row[name] for row in unpacked] for name in names}


def floats(little_endian: bytes) -> list[float]:
    """The numbers of little-endian float32 bytes."""
    numbers = array("f", little_endian)
    if byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _user(packed: bytes | None) -> tuple[Value, ...]:
    row = unpack(UserRow, packed)
    return (
        [event.ts for event in row.recent],
        [event.item for event in row.recent],
        [event.category for event in row.recent],
        [KINDS[event.kind] for event in row.recent],
        [_text(event.pair) for event in row.recent],
        [query.ts for query in row.queries],
        [query.text for query in row.queries],
        [touched.category for touched in row.categories],
        [touched.last_ts for touched in row.categories],
        [touched.count for touched in row.categories],
        [event.ts for event in row.bought],
        [event.item for event in row.bought],
    )


def _user_category(packed: bytes | None) -> tuple[Value, ...]:
    row = unpack(CategoryRow, packed)
    return (
        [event.ts for event in row.events],
        [event.item for event in row.events],
        [KINDS[event.kind] for event in row.events],
        [_text(event.pair) for event in row.events],
        [bucket.start_ms for bucket in row.folded],
        [bucket.width_ms for bucket in row.folded],
        [bucket.count for bucket in row.folded],
        row.count,
    )


def _user_interests(packed: bytes | None) -> tuple[Value, ...]:
    row = unpack(InterestsRow, packed)
    return row.categories, floats(row.vectors), row.dim, row.generation


def _user_candidates(packed: bytes | None) -> tuple[Value, ...]:
    row = unpack(CandidatesRow, packed)
    return (
        [candidate.item for candidate in row.candidates],
        [float(candidate.score) for candidate in row.candidates],
        [candidate.category for candidate in row.candidates],
        [candidate.path for candidate in row.candidates],
        row.level if packed is not None else "",
        row.generation,
        row.event_ts,
        row.published_ts,
    )


def _item(packed: bytes | None) -> tuple[Value, ...]:
    row = unpack(ItemRow, packed)
    return row.category, row.title, float(row.price), floats(row.vector), list(row.code), row.generation, int(row.deleted)


def _text(pair: Pair | None) -> str:
    return pair.text if pair is not None else ""


def _names(view: table.RowView) -> tuple[str, ...]:
    return tuple(field.name for field in view.fields)


_Unpacker = Callable[[bytes | None], tuple[Any, ...]]
_UNPACKERS: dict[str, tuple[tuple[str, ...], _Unpacker]] = {
    view.name: (_names(view), unpacker)
    for view, unpacker in (
        (table.USER, _user),
        (table.USER_CATEGORY, _user_category),
        (table.USER_INTERESTS, _user_interests),
        (table.USER_CANDIDATES, _user_candidates),
        (table.ITEM, _item),
    )
}

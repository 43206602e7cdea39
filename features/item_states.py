"""Which state of an item is valid: a function of the set of its item events, the same in serving and in training.

The newest `ts` wins. At equal `ts` a deletion wins, then the larger bytes, so order of arrival does not matter. A described state beats
one that is only inferred from clicks and orders, whatever their times: a log without a catalogue never overwrites a catalogue.

A state is an ItemRow without vector and code. A deletion is a state with only a time.
"""

from collections.abc import Iterable
from typing import TypeVar

import msgspec
import numpy as np

from features.codec import pack
from features.embeddings import packed_embedding
from features.events import UNKNOWN_CATEGORY, Item
from features.outcomes import ItemRow

State = TypeVar("State", Item, ItemRow)


def state_of(item: Item) -> ItemRow:
    """The state that an item event describes."""
    if item.deleted:
        return ItemRow(deleted=True, ts=item.ts)
    return ItemRow(
        category=item.category_id,
        title=item.title,
        price=item.price + 0.0,
        ts=item.ts,
        attributes=dict(sorted(item.attributes.items())),
        image=packed_embedding(item.image_embedding),
        text=packed_embedding(item.text_embedding),
        inferred=item.inferred,
    )


def bare(row: ItemRow) -> ItemRow:
    """The state in a row of the store."""
    return msgspec.structs.replace(row, vector=b"", code=b"", generation="")


def item_of(item_id: str, state: ItemRow) -> Item:
    """The item event that describes a state; the inverse of `state_of`."""
    if state.deleted:
        return Item(item_id=item_id, category_id=UNKNOWN_CATEGORY, title="", ts=state.ts, deleted=True)
    return Item(
        item_id=item_id,
        category_id=state.category,
        title=state.title,
        ts=state.ts,
        attributes=state.attributes,
        price=state.price,
        image_embedding=_numbers(state.image),
        text_embedding=_numbers(state.text),
        inferred=state.inferred,
    )


def winner(one: State, other: State) -> State:
    """The valid one of two states of an item; if they are equal, the first."""
    rank, others = _rank(one), _rank(other)
    if rank != others:
        return one if rank > others else other
    return one if same(one, other) or _content(one) > _content(other) else other


def same(one: State, other: State) -> bool:
    """Whether two states of an item are equal, embeddings as float32."""
    return one is other or (_rank(one) == _rank(other) and _content(one) == _content(other))


def newest(states: Iterable[Item]) -> dict[str, Item]:
    """The valid state of each item, by item id."""
    found: dict[str, Item] = {}
    for state in states:
        known = found.get(state.item_id)
        found[state.item_id] = state if known is None else winner(known, state)
    return found


def _rank(state: Item | ItemRow) -> tuple[bool, int, bool]:
    return not state.inferred or state.deleted, state.ts, state.deleted


def _content(state: Item | ItemRow) -> bytes:
    return pack(state_of(state) if isinstance(state, Item) else bare(state))


def _numbers(packed: bytes) -> list[float] | None:
    """The numbers of an embedding, each with the fewest digits that give the same float32, to keep events short."""
    return [_short(str(number)) for number in np.frombuffer(packed, "<f4")] if packed else None


def _short(digits: str) -> float:
    number = float(digits)
    return int(number) if number.is_integer() and abs(number) < 1e9 else number

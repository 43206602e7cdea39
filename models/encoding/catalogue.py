"""Which items there are at a moment, from what describes them and from the events that touch them."""

from collections.abc import Iterable, Mapping

from features.events import Item
from features.history import Deeds
from features.item_states import newest, winner


def alive(states: Iterable[Item]) -> list[Item]:
    """The state of each item that counts (features.item_states), ascending by id, without deleted items."""
    return [item for _, item in sorted(newest(states).items()) if not item.deleted]


def known_at(states: Iterable[Item], cut_ms: int) -> list[Item]:
    """One state of each item: its newest from before `cut_ms`, else its first (then it is new after the cut)."""
    before: list[Item] = []
    first: dict[str, Item] = {}
    for item in states:
        if item.ts < cut_ms:
            before.append(item)
            continue
        known = first.get(item.item_id)
        if known is None or item.ts < known.ts or (item.ts == known.ts and winner(known, item) is item):
            first[item.item_id] = item
    return list((first | newest(before)).values())


def catalogue_of(states: Iterable[Item], done: Mapping[str, Deeds]) -> list[Item]:
    """Items that are not deleted, and items known only from events: these have no title, and the category of their newest event."""
    states = list(states)
    described = {item.item_id for item in states}
    inferred: dict[str, Item] = {}
    for deed in done.values():
        for event in deed.events:
            if event.item not in described and (event.item not in inferred or event.ts > inferred[event.item].ts):
                inferred[event.item] = Item(item_id=event.item, category_id=event.category, title="", ts=event.ts, inferred=True)
    return alive([*states, *inferred.values()])


def catalogue_at(cut_ms: int, described: Iterable[Item], inferred: Iterable[Item], known: Mapping[str, Deeds]) -> list[Item]:
    """What could be recommended at the cut: `described` items as `known_at` gives them, and other items with `known` events.

    `inferred` are states of items known only from events. An item whose only events are held out is left out: its presence would give
    the answer away.
    """
    touched = {event.item for deed in known.values() for event in deed.events}
    return catalogue_of([*(item for item in inferred if item.item_id in touched), *known_at(described, cut_ms)], known)

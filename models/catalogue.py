"""Which items there are at a moment, from what describes them and from the events that touch them."""

from collections.abc import Iterable, Mapping
from operator import attrgetter

from features.events import Item
from features.history import Deeds


def alive(states: Iterable[Item]) -> list[Item]:
    """The newest state of each item, ascending by id, without those that it says are deleted. Of one time the last given is the newest."""
    newest = {item.item_id: item for item in sorted(states, key=attrgetter("ts"))}
    return [item for _, item in sorted(newest.items()) if not item.deleted]


def known_at(states: Iterable[Item], cut_ms: int) -> list[Item]:
    """One state of each item: its newest from before `cut_ms`, else its first (then it is new after the cut)."""
    known: dict[str, Item] = {}
    for item in sorted(states, key=attrgetter("ts")):
        if item.ts < cut_ms or item.item_id not in known:
            known[item.item_id] = item
    return list(known.values())


def catalogue_of(states: Iterable[Item], done: Mapping[str, Deeds]) -> list[Item]:
    """What is alive, with the items that nothing but events tell of: these have no title, and the category of their newest event."""
    states = list(states)
    described = {item.item_id for item in states}
    told: dict[str, Item] = {}
    for deed in done.values():
        for event in deed.events:
            if event.item not in described and (event.item not in told or event.ts > told[event.item].ts):
                told[event.item] = Item(item_id=event.item, category_id=event.category, title="", ts=event.ts)
    return alive([*states, *told.values()])


def catalogue_at(cut_ms: int, described: Iterable[Item], told: Iterable[Item], known: Mapping[str, Deeds]) -> list[Item]:
    """What could be recommended at the cut: items that are `described`, as `known_at` says, and of others those that `known` events touch.

    `told` are states of items that only events tell of. That one is there at all because a held-out event tells of it would
    give the answer away.
    """
    touched = {event.item for deed in known.values() for event in deed.events}
    return catalogue_of([*(item for item in told if item.item_id in touched), *known_at(described, cut_ms)], known)

"""Item events for data without any, inferred from the events on the items."""

from collections.abc import Iterable

from features.events import Click, Event, Item, Order


def items_of(events: Iterable[Event]) -> list[Item]:
    """A minimal item (no title) for each item with events but without a description, ascending by item id.

    Category and time are those of the first event on it, first by (ts, category), so the order of events does not matter.
    """
    first: dict[str, tuple[int, str]] = {}
    described = set()
    for event in events:
        if isinstance(event, Item):
            described.add(event.item_id)
            continue
        touched: Iterable[tuple[str, str]] = ()
        if isinstance(event, Click):
            touched = ((event.item_id, event.category_id),)
        elif isinstance(event, Order):
            touched = ((line.item_id, line.category_id) for line in event.lines)
        for item, category in touched:
            first[item] = min(first.get(item, (event.ts, category)), (event.ts, category))
    return [
        Item(item_id=item, category_id=category, title="", ts=ts, inferred=True)
        for item, (ts, category) in sorted(first.items())
        if item not in described
    ]

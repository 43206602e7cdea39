"""Whether an item is in stock. Retrieval excludes items that are not."""

from features.events import Item
from features.text import normalise

ATTRIBUTES = ("available", "in_stock")
NO = frozenset({"false", "0", "no"})


def is_available(item: Item) -> bool:
    """False if the attribute `available` or `in_stock` is false, 0 or no (case-insensitive); true otherwise.

    An item without these attributes, or with any other value, is available: a catalogue need not contain stock levels.
    """
    return not any(normalise(item.attributes.get(name, "")) in NO for name in ATTRIBUTES)

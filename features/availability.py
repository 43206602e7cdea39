"""Whether an item can be had: what retrieval leaves out while it is out of stock."""

from features.events import Item
from features.text import normalise

ATTRIBUTES = ("available", "in_stock")
NO = frozenset({"false", "0", "no"})


def is_available(item: Item) -> bool:
    """False where the attribute `available` or `in_stock` says false, 0 or no, in any case of letters; true otherwise.

    An item without these attributes, or with a word that means nothing here, is available: a catalogue need not know stocks.
    """
    return not any(normalise(item.attributes.get(name, "")) in NO for name in ATTRIBUTES)

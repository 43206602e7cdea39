"""Whether an item can be had: what retrieval leaves out while it is out of stock."""

from features.events import Item

ATTRIBUTES = ("available", "in_stock")
NO = frozenset({"false", "0", "no"})


def is_available(item: Item) -> bool:
    """False where the attribute `available` or `in_stock` says false, 0 or no, in any case of letters; true otherwise.

    An item without these attributes, or with a word that means nothing here, is available: a catalogue need not know stocks.
    """
    return not any(item.attributes.get(name, "").strip().lower() in NO for name in ATTRIBUTES)

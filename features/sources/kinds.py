"""Kinds of behaviour, and their names in other systems."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SEARCH, CLICK, CART, FAVOURITE, ORDER = range(5)
UNKNOWN = -1
NAMES = ("search", "click", "cart", "favourite", "order")
SYNONYMS: Mapping[str, Sequence[str]] = {
    "search": ("query", "searched", "products_searched", "view_search_results"),
    "click": ("clicks", "clicked", "pv", "view", "viewed", "item_view", "view_item", "product_view", "view_product", "product_viewed",
              "product_clicked", "select_item"),
    "cart": ("carts", "add_to_cart", "add_cart", "cart_add", "product_added"),
    "favourite": ("fav", "favorite", "add_to_wishlist", "wishlist", "product_added_to_wishlist"),
    "order": ("orders", "buy", "bought", "purchase", "purchased", "transaction", "sale", "order_completed"),
}  # fmt: skip
_CODES = {re.sub(r"[^a-z0-9]+", "", name): code for code, first in enumerate(NAMES) for name in (first, *SYNONYMS[first])}


def code_of(name: str) -> int:
    """The kind that a name stands for, or UNKNOWN; case, spaces, `_` and `-` do not matter."""
    return _CODES.get(re.sub(r"[^a-z0-9]+", "", name.lower()), UNKNOWN)


def codes(column: pa.Array) -> tuple[np.ndarray, dict[str, int]]:
    """The kinds (rows,) int8 of a column of text, and the count of each unknown name."""
    coded = pc.dictionary_encode(column)
    names = coded.dictionary.to_pylist()
    known = np.array([*map(code_of, names), UNKNOWN], np.int8)
    places = pc.fill_null(coded.indices, len(names)).to_numpy(zero_copy_only=False)
    found = known[places]
    times = np.bincount(places[found == UNKNOWN], minlength=len(known))
    return found, {name: int(count) for name, count in zip([*names, "(missing)"], times, strict=True) if count}

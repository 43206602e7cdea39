"""Tables of products, in any format of features.sources: each row describes an item, and every column is used.

Columns with unknown names become attributes: at most MOST_ATTRIBUTES texts of at most LONGEST_VALUE characters; empty cells are
omitted.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from features.errors import SourceError
from features.events import MAX_EVENT_BYTES, Item, encode
from features.sources import amounts, scanning
from features.sources.columns import PRODUCTS, Assigned, Product, assign, missing, squash
from features.sources.formats import Format, detect
from features.sources.ids import ids, unfit, without_placeholders, words
from features.sources.raw import Raw
from features.sources.refusals import RefusalReason, Refusals
from features.sources.tables import LONGEST_TEXT, UNKNOWN_CATEGORY, Categories

MOST_ATTRIBUTES = 32
LONGEST_VALUE = 256
MOST_WIDTH = 4096
_OPTION = "--product-columns"
_TITLE_OF = ("product_type", "package_size")  # columns that together make a title if there is no title column
_OURS = ("topic", "v", "ts", "deleted")  # fields of item events that are not attributes
_NOT_AVAILABLE = {"outofstock", "soldout", "unavailable", "notavailable", "discontinued", "backorder", "n", "f"}


class Products:
    """The items in a table of products, not yet with a time, and the interpretation of its columns.

    Raises:
        SourceError: the file cannot be read, or has no item column.
    """

    def __init__(self, path: Path, chosen: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.detected = detect(path)
        self.refusals = Refusals()
        self.rows = self.twice = self.bad_prices = self.bad_vectors = 0
        self.columns = Assigned({}, [])
        self.attributes: list[str] = []
        self._chosen = chosen or {}
        self._candidates: list[str] = []
        self._lists: set[str] = set()
        self._items: dict[str, Item] = {}
        if self.detected.format is Format.TAOBAO_CSV:
            raise SourceError(f"{path} is a log of events (Taobao's), not a table of products")
        for raw in scanning.scan(path, self.detected, self.refusals, self._pick):
            self.rows += len(raw.rows)
            for item in self._take(raw):
                self._add(item)
        self.rows += self.refusals.total

    def __len__(self) -> int:
        return len(self._items)

    @property
    def ids(self) -> set[str]:
        """The ids of the items."""
        return set(self._items)

    @property
    def ignored(self) -> list[str]:
        """The unused columns."""
        return [name for name in self.columns.rest if name not in self.attributes and name not in _OURS]

    @property
    def notes(self) -> list[str]:
        """Sentences about what was omitted in reading the table."""
        counted = (
            (self.bad_prices, "prices that are unreadable or negative count as absent"),
            (
                self.bad_vectors,
                f"embeddings that are not lists of at most {MOST_WIDTH} numbers, or make an item larger than 64 KiB, count as absent",
            ),
            (self.twice, "rows of a product that another row describes differently: only one of them is used"),
        )
        return [f"{sentence}: {count:,}" for count, sentence in counted if count]

    def categories(self) -> Categories:
        """The categories of items that have one."""
        known = [(name, item.category_id) for name, item in self._items.items() if item.category_id]
        return Categories(pa.array([name for name, _ in known], pa.string()), pa.array([category for _, category in known], pa.string()))

    def items(self, ts_ms: int, categories: Mapping[str, str]) -> Iterator[Item]:
        """The items as of `ts_ms`; those without a category get theirs from `categories`, else `unknown`."""
        for name, item in self._items.items():
            yield msgspec.structs.replace(item, ts=ts_ms, category_id=item.category_id or categories.get(name) or UNKNOWN_CATEGORY)

    def _pick(self, names: Sequence[str]) -> list[str]:
        what = str(self.path)
        flat = {squash(name) for name in names}
        if {"property", "value"} <= flat:
            raise SourceError(
                f"{what} has a row for each property of an item (columns property, value): write one row per item, one column per property"
            )
        self.columns = assign(what, names, PRODUCTS, self._chosen, _OPTION)
        if Product.ITEM not in self.columns.used:
            raise missing(what, [Product.ITEM], names, PRODUCTS, _OPTION)
        taken = [name for name in self.columns.rest if name not in _OURS]
        if Product.TITLE not in self.columns.used and "product_type" in taken:
            taken.remove("product_type")
        self._candidates = taken
        return list(names)

    def _take(self, raw: Raw) -> Iterator[Item]:
        """The valid items of a batch; a missing category is empty."""
        used = self.columns.used
        item = ids(used[Product.ITEM], raw.columns[used[Product.ITEM]])
        there = item.text.is_valid().to_numpy(zero_copy_only=False)
        category = pa.array(self._text(raw, Product.CATEGORY, categories=True), pa.string())
        name = used[Product.ITEM]
        good = np.ones(len(raw.rows), bool)
        for bad, reason, sentence in (
            (item.broken, RefusalReason.NOT_UTF8, f"column {name} is not UTF-8"),
            (~there, RefusalReason.MISSING_ITEM, f"column {name} has no item"),
            *unfit(name, item.text),
            *unfit(used.get(Product.CATEGORY, "category"), category),
        ):
            self.refusals.add(raw.rows[bad & good].tolist(), reason, sentence)
            good &= ~bad
        self.rows -= int((~good).sum())
        title = self._titles(raw)
        price = self._prices(raw)
        vectors = {role: self._vectors(raw, role) for role in (Product.IMAGE, Product.WORDS)}
        attributes = self._attributes(raw)
        names, categories = item.text.to_pylist(), category.to_pylist()
        for at in np.flatnonzero(good).tolist():
            yield Item(
                item_id=names[at],
                category_id=categories[at] or "",
                title=(title[at] or "")[:LONGEST_TEXT],
                ts=0,
                attributes={name: value[:LONGEST_VALUE] for name, column in attributes.items() if (value := column[at])},
                price=price[at],
                image_embedding=vectors[Product.IMAGE][at],
                text_embedding=vectors[Product.WORDS][at],
            )

    def _add(self, item: Item) -> None:
        """Keep an item; of two with the same id the larger one as bytes, so that the order of rows does not matter."""
        if (item.image_embedding or item.text_embedding) and len(encode(item)) > MAX_EVENT_BYTES - 64:
            self.bad_vectors += 1
            item = msgspec.structs.replace(item, image_embedding=None, text_embedding=None)
        if (other := self._items.get(item.item_id)) is not None:
            self.twice += other != item
            item = max(item, other, key=encode)
        self._items[item.item_id] = item

    def _text(self, raw: Raw, role: Product, categories: bool = False) -> list[str | None]:
        column = self.columns.used.get(role)
        if column is None:
            return [None] * len(raw.rows)
        text = (ids if categories else words)(column, raw.columns[column]).text
        found: list[str | None] = without_placeholders(text).to_pylist()
        return found

    def _titles(self, raw: Raw) -> list[str | None]:
        if Product.TITLE in self.columns.used:
            return self._text(raw, Product.TITLE)
        parts = [words(name, raw.columns[name]).text.to_pylist() for name in _TITLE_OF if name in self.columns.rest]
        return [" ".join(part for part in row if part) for row in zip(*parts, strict=True)] if parts else [None] * len(raw.rows)

    def _prices(self, raw: Raw) -> list[float]:
        column = self.columns.used.get(Product.PRICE)
        if column is None:
            return [0.0] * len(raw.rows)
        found, bad = amounts.prices(column, raw.columns[column])
        self.bad_prices += bad
        prices: list[float] = found.tolist()
        return prices

    def _vectors(self, raw: Raw, role: Product) -> list[list[float] | None]:
        column = self.columns.used.get(role)
        return [None] * len(raw.rows) if column is None else [self._vector(value) for value in raw.columns[column].to_pylist()]

    def _vector(self, value: Any) -> list[float] | None:
        """A list of finite numbers, also if written as text."""
        if value is None or value == "":
            return None
        try:
            found = [float(number) for number in (msgspec.json.decode(value) if isinstance(value, str) else value)]
        except (ValueError, TypeError, msgspec.MsgspecError):
            found = []
        if not 0 < len(found) <= MOST_WIDTH or not np.isfinite(np.array(found, np.float32)).all():
            self.bad_vectors += 1
            return None
        return found

    def _attributes(self, raw: Raw) -> dict[str, list[str | None]]:
        attributes = {}
        self._lists |= {name for name in self._candidates if pa.types.is_nested(raw.columns[name].type)}
        self.attributes = [name for name in self._candidates if name not in self._lists][:MOST_ATTRIBUTES]
        for name in self.attributes:
            text = without_placeholders(
                ids(name, raw.columns[name]).text if _number_like(raw.columns[name]) else words(name, raw.columns[name]).text
            )
            attributes[name.removeprefix("attributes.")[:64]] = text.to_pylist()
        if Product.AVAILABLE in self.columns.used:
            attributes["available"] = [_availability(value) for value in self._text(raw, Product.AVAILABLE)]
        return attributes


def _number_like(column: pa.Array) -> bool:
    return pa.types.is_floating(column.type) and not pa.types.is_float16(column.type)


def _availability(value: str | None) -> str | None:
    """`false` for a word or a stock that means unavailable; else the value as written."""
    if value is None:
        return None
    number = amounts.number(value)
    return "false" if squash(value) in _NOT_AVAILABLE or number <= 0 else value

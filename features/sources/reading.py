"""One file of events, read once: how it was interpreted, its refused rows, its events and its items."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType

import pyarrow as pa

from features.errors import SourceError
from features.events import Event, Item
from features.sources import baskets, lines, objects, scanning
from features.sources.catalogue import items_of
from features.sources.formats import Detected, Format, detect
from features.sources.products import Products
from features.sources.refusals import Refusals
from features.sources.spool import CHUNK_ROWS, Spool
from features.sources.tables import How, Table

USUAL = How()


class Reading:
    """A file read once; its rows are spooled (features.sources.spool), so that nothing else reads it again.

    Results depend on the set of rows in the file, never on their order: events ascend by time. `products` is a table that describes
    items; it also gives categories to events without one. Use it as a context manager, or `close` it: a large file leaves its rows in
    a temporary folder.

    Raises:
        SourceError: the file is in no known format, lacks a column, mixes units of time, or has no product in common with `products`.
    """

    def __init__(self, path: Path | str, how: How = USUAL, products: Products | None = None, chunk_rows: int = CHUNK_ROWS) -> None:
        self.path = Path(path)
        self.how = how
        self.products = products
        self.detected: Detected = detect(self.path)
        self.refusals = Refusals()
        self.table: Table | None = None
        self._module: ModuleType = baskets
        self._spool = self._read(chunk_rows)
        if self.table is not None:
            self.table.times.check()
        self.count = sum(self._module.count(chunk) for chunk in self._spool)
        self._touched: list[Item] | None = None
        if products is not None and self.count:
            self._compare(products)

    def __enter__(self) -> "Reading":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the spooled rows."""
        self._spool.close()

    @property
    def rows(self) -> int:
        """The number of rows in the file, valid and refused."""
        return self._spool.rows + self.refusals.total

    @property
    def good(self) -> int:
        """The number of valid rows."""
        return self._spool.rows

    @property
    def refused_share(self) -> float:
        """The share of refused rows."""
        return self.refusals.total / max(1, self.rows)

    @property
    def notes(self) -> list[str]:
        """Sentences about what was assumed or omitted in reading the file."""
        if self.table is None:
            return []
        return [
            *self.table.notes,
            *(["prices that are unreadable or negative count as absent: " + f"{n:,}"] if (n := self.table.bad_prices) else []),
        ]

    def chunks(self) -> Iterator[pa.Table]:
        """The valid rows, ascending by time."""
        return iter(self._spool)

    def events(self) -> Iterator[Event]:
        """The events, ascending by time, including the file's item events."""
        return (event for chunk in self._spool for event in self._module.events(chunk))

    def touched(self) -> list[Item]:
        """A minimal item for each item with events that the file does not describe, ascending by id.

        It has the category and the time of its first event, and the file's text for it, if any, as its title.
        """
        if self._touched is None:
            if self._module is lines:
                self._touched = items_of(self.events())
            else:
                found = baskets.items(self._spool)
                self._touched = [found[name] for name in sorted(found)]
        return self._touched

    def described(self) -> list[Item]:
        """The items in the table of products, ascending by id, as of the file's first event on an item that it does not describe."""
        touched = self.touched()
        if self.products is None or not touched:
            return []
        first_ms = min(item.ts for item in touched)
        return sorted(self.products.items(first_ms, {item.item_id: item.category_id for item in touched}), key=lambda item: item.item_id)

    def undescribed(self) -> list[Item]:
        """The items of `touched` that the table of products lacks too."""
        known = self.products.ids if self.products is not None else set()
        return [item for item in self.touched() if item.item_id not in known]

    def _read(self, chunk_rows: int) -> Spool:
        if self.detected.format in (Format.JSON_LINES, Format.JSON_ARRAY):
            head = objects.head(self.path, self.detected)
            if not self.how.columns and lines.are_ours(head):
                self._module = lines
                batches = lines.scan(self.path, self.detected, self.refusals, self.how.now_ms, self.how.rules)
                return Spool(batches, lines.in_order, chunk_rows)
        categories = self.products.categories() if self.products is not None else None
        names = scanning.names(self.path, self.detected)
        self.table = Table(str(self.path), self.how, self.refusals, categories, names)
        if self.detected.format in (Format.JSON_LINES, Format.JSON_ARRAY):
            self.table.widen()
        raws = scanning.scan(self.path, self.detected, self.refusals, self.table.pick)
        return Spool(map(self.table.take, raws), baskets.in_order, chunk_rows)

    def _compare(self, products: Products) -> None:
        """Refuse a table of products that describes no item of the events."""
        touched = {item.item_id for item in self.touched()}
        if not touched or touched & products.ids:
            return
        events, table = (", ".join(islice(sorted(found), 3)) for found in (touched, products.ids))
        stripped = {name.lstrip("0") for name in products.ids}
        why = "the events' ids have lost leading zeros" if any(len(n) != len(n.lstrip("0")) for n in products.ids) else "the table's have"
        same = sum(name.lstrip("0") in stripped for name in touched)
        hint = (
            f"; {same:,} match without leading zeros: {why}, so read that column as text"
            if same
            else "; is the right column the id (--product-columns item=...)?"
        )
        raise SourceError(
            f"{products.path} describes none of the {len(touched):,} items of {self.path.name} (there {events}; in the table {table}){hint}"
        )

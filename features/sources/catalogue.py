"""Item events for data that has none: from a table of products, or from the events that touch the items."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet

from features.events import Click, Event, Item, Order
from features.sources.formats import BadSource
from features.sources.tables import BATCH_ROWS, UNKNOWN_CATEGORY

_ATTRIBUTES = ("department", "brand", "manufacturer_id", "package_size")


def items_of(events: Iterable[Event]) -> list[Item]:
    """A minimal item (no title) for each item that events touch and none of them describes, ascending by item id.

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


def read_products(path: Path, ts_ms: int) -> Iterator[Item]:
    """The items of a table with `product_id` and `product_category`, as they stand at `ts_ms`, in file order.

    The title is `product_type` and `package_size` where there are such columns. A missing category becomes `unknown`.
    Raises BadSource where a column is missing or an id is null.
    """
    with pyarrow.parquet.ParquetFile(path) as file:
        if missing := {"product_id", "product_category"} - set(file.schema_arrow.names):
            raise BadSource(f"{path} has no column {', '.join(sorted(missing))}: a table of products needs both")
        for batch in file.iter_batches(BATCH_ROWS):
            for row in batch.to_pylist():
                if row["product_id"] is None:
                    raise BadSource(f"{path}: a product without product_id")
                title = " ".join(str(row[name]) for name in ("product_type", "package_size") if row.get(name) is not None)
                yield Item(
                    item_id=str(row["product_id"]),
                    category_id=row["product_category"] or UNKNOWN_CATEGORY,
                    title=title[:512],
                    ts=ts_ms,
                    attributes={name: str(row[name]) for name in _ATTRIBUTES if row.get(name) is not None},
                )

"""Files of events and of products: parquet, delimited text with a header, Taobao's UserBehavior.csv, JSON lines and arrays.

`Reading` reads a file once and reports how it was interpreted; docs/data.md describes the accepted files. Modules: `formats`
recognises a file, `columns` finds columns by name, `times`, `ids`, `kinds` and `amounts` read them, `tables` makes rows of one
schema, `baskets` makes events; `lines` reads events in Everlong's wire format.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from features.errors import SourceError
from features.events import Event, Item, Order, Query, Topic, encode
from features.sources.catalogue import items_of
from features.sources.products import Products
from features.sources.reading import USUAL, Reading
from features.sources.refusals import RefusalReason, Refusals, Refused
from features.sources.tables import How
from features.sources.times import Unit

__all__ = ["How", "Products", "Reading", "RefusalReason", "Refusals", "Refused", "Unit", "items_of", "read", "topic_of", "write"]


def read(path: Path | str, how: How = USUAL) -> Iterator[Event]:
    """The events of a file, ascending by time, independent of the order of its rows.

    Raises:
        SourceError: as `Reading`; or a row is refused.
    """
    reading = Reading(path, how)
    if reading.refusals.total:
        first = reading.refusals.first[0]
        raise SourceError(f"{path}, row {first.row}: {first.detail} ({first.reason})")
    return reading.events()


def write(path: Path | str, events: Iterable[Event]) -> int:
    """Write events as JSON lines that `read` accepts; returns their number."""
    written = 0
    with Path(path).open("wb") as file:
        for event in events:
            file.write(encode(event) + b"\n")
            written += 1
    return written


def topic_of(event: Event) -> Topic:
    """The topic of an event."""
    if isinstance(event, Item):
        return Topic.ITEMS
    if isinstance(event, Query):
        return Topic.QUERIES
    return Topic.ORDERS if isinstance(event, Order) else Topic.CLICKS

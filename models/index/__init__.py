"""The index of items: `ItemIndex` takes changes, `look` gives a `View` to search; everything else here is how."""

from models.index.cells import Sizes, bytes_per_item
from models.index.changes import Change, Delete, Found, Upsert, Where
from models.index.index import ItemIndex
from models.index.view import View

__all__ = [
    "Change",
    "Delete",
    "Found",
    "ItemIndex",
    "Sizes",
    "Upsert",
    "View",
    "Where",
    "bytes_per_item",
]

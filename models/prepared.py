"""What a training reads once: who did what until the cut, the catalogue of that moment, its vocabulary and arrays."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from features.events import Item
from features.history import Deeds
from models.bundle import Bundle
from models.config import Config
from models.seminar.contents import Contents, Widths, contents
from models.vocabulary import Vocabulary


class Prepared(NamedTuple):
    """What is read once from events and catalogue: who did what, the cut (ms), items and their arrays."""

    done: Mapping[str, Deeds]
    cut_ms: int
    catalogue: list[Item]
    vocabulary: Vocabulary
    widths: Widths
    contents: Contents  # of the V items
    category: np.ndarray  # (V,) rows of the vocabulary
    parent: Bundle | None  # that is gone on from


def prepare(done: Mapping[str, Deeds], items: Iterable[Item], config: Config, cut_ms: int, parent: Bundle | None) -> Prepared:
    """Of a history and the items that are told of. With a `parent` its vocabulary is grown, and its widths stay."""
    catalogue = catalogue_of(items, done, cut_ms)
    seen = {event.item for deed in done.values() for event in deed.events if event.ts < cut_ms}
    vocabulary = (parent.vocabulary if parent else Vocabulary.of((), ())).grown((item.category_id for item in catalogue), seen)
    widths = parent.manifest.widths if parent else Widths.of(catalogue)
    category = np.array([vocabulary.category(item.category_id) for item in catalogue], np.int64)
    shown = contents(catalogue, vocabulary, config.search_unit, widths)
    return Prepared(done, cut_ms, catalogue, vocabulary, widths, shown, category, parent)


def catalogue_of(items: Iterable[Item], done: Mapping[str, Deeds], cut_ms: int) -> list[Item]:
    """The newest state of each item that is not deleted, and of each that only events before the cut tell of; by id."""
    newest: dict[str, Item] = {}
    for item in items:
        if item.item_id not in newest or item.ts >= newest[item.item_id].ts:
            newest[item.item_id] = item
    told: dict[str, Item] = {}
    for deed in done.values():
        for event in deed.events:
            if event.ts < cut_ms and event.item not in newest and (event.item not in told or event.ts > told[event.item].ts):
                told[event.item] = Item(item_id=event.item, category_id=event.category, title="", ts=event.ts)
    return [item for _, item in sorted((newest | told).items()) if not item.deleted]

"""What a training reads once: who did what until the cut, the catalogue of that moment, its vocabulary and arrays."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from features.events import Item
from features.history import Deeds
from models.bundle import Bundle
from models.config import NetworkConfig
from models.encoding.catalogue import alive
from models.encoding.contents import Contents, Widths, contents
from models.encoding.vocabulary import Vocabulary


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


def prepare(done: Mapping[str, Deeds], items: Iterable[Item], config: NetworkConfig, cut_ms: int, parent: Bundle | None) -> Prepared:
    """Of a history and the states of items. With a `parent` its vocabulary is grown, and its widths stay."""
    catalogue = alive(items)
    seen = {event.item for deed in done.values() for event in deed.events if event.ts < cut_ms} & {item.item_id for item in catalogue}
    vocabulary = (parent.vocabulary if parent else Vocabulary.of((), ())).grown((item.category_id for item in catalogue), seen)
    widths = parent.manifest.widths if parent else Widths.of(catalogue)
    category = np.array([vocabulary.category(item.category_id) for item in catalogue], np.int64)
    shown = contents(catalogue, vocabulary, config, widths)
    return Prepared(done, cut_ms, catalogue, vocabulary, widths, shown, category, parent)

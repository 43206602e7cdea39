"""The data of a training: the history until the cut, the catalogue of that moment as arrays, and the examples of both."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from features.events import Item
from features.history import Deeds, Moment, moments
from features.rows import Behaviour, CategoryRow
from models.bundle import Bundle
from models.config import Config, NetworkConfig, TrainingConfig
from models.encoding.catalogue import alive
from models.encoding.contents import Contents, Widths, contents
from models.encoding.inputs import Positions, Texts, Tokens, TouchedTokens, long_tokens, newest_ts, short_tokens, touched_tokens
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
    parent: Bundle | None  # the bundle whose training is continued


def prepare(done: Mapping[str, Deeds], items: Iterable[Item], config: NetworkConfig, cut_ms: int, parent: Bundle | None) -> Prepared:
    """Of a history and the states of items. With a `parent` its vocabulary is grown, and its widths stay."""
    catalogue = alive(items)
    seen = {event.item for deed in done.values() for event in deed.events if event.ts < cut_ms} & {item.item_id for item in catalogue}
    vocabulary = (parent.vocabulary if parent else Vocabulary.of((), ())).grown((item.category_id for item in catalogue), seen)
    widths = parent.manifest.widths if parent else Widths.of(catalogue)
    category = np.array([vocabulary.category(item.category_id) for item in catalogue], np.int64)
    shown = contents(catalogue, vocabulary, config, widths)
    return Prepared(done, cut_ms, catalogue, vocabulary, widths, shown, category, parent)


CHUNK = 2048
_TOKEN_TYPES = (np.int32, np.int32, np.int8, np.int8, np.int32)


class Examples(NamedTuple):
    """E targets. `item` is a position in the item table, `category` a row of the vocabulary."""

    short: Tokens  # (E, S)
    long: Tokens  # (E, L), of the target's category
    touched: TouchedTokens  # (E, P')
    item: np.ndarray  # (E,) int64
    category: np.ndarray  # (E,) int64
    words: np.ndarray  # (number of texts, W)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All arrays, in a fixed order."""
        return (*self.short, *self.long, *self.touched, self.item, self.category, self.words)

    def batches(self, config: TrainingConfig, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Each example once: runs of one category (category-homogeneous batches, ULIM), the runs shuffled, in batches."""
        order = rng.permutation(len(self.item))
        order = order[np.argsort(self.category[order], kind="stable")]
        starts = np.flatnonzero(np.diff(self.category[order], prepend=-1))
        within = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
        runs = np.split(order, np.flatnonzero(within % config.category_run == 0)[1:])
        rng.shuffle(runs)
        shuffled = np.concatenate(runs)
        for start in range(0, len(shuffled), config.batch):
            yield shuffled[start : start + config.batch]


def build(done: Mapping[str, Deeds], positions: Positions, config: Config, until_ts: int, from_ts: int = 0) -> Examples | None:
    """Examples from all baskets from `from_ts` on, before `until_ts` (ms), of the items of the table; None where there are none."""
    texts = Texts(config.network)
    parts: list[tuple[Tokens, Tokens, TouchedTokens, np.ndarray, np.ndarray]] = []
    chunk: list[tuple[Moment, Behaviour]] = []
    for moment in moments(dict(done), from_ts=from_ts, until_ts=until_ts, per_user=config.training.per_user):
        chunk += [(moment, event) for event in _targets(moment.basket, config.training.per_basket, positions)]
        if len(chunk) >= CHUNK:
            parts.append(_encode(chunk, positions, texts, config))
            chunk = []
    if chunk:
        parts.append(_encode(chunk, positions, texts, config))
    if not parts:
        return None
    short, long, touched, item, category = zip(*parts, strict=True)
    return Examples(
        Tokens(*(_join(arrays) for arrays in zip(*short, strict=True))),
        Tokens(*(_join(arrays) for arrays in zip(*long, strict=True))),
        TouchedTokens(*(_join(arrays) for arrays in zip(*touched, strict=True))),
        np.concatenate(item),
        np.concatenate(category),
        texts.words(),
    )


def _targets(basket: Sequence[Behaviour], count: int, positions: Positions) -> list[Behaviour]:
    """At most `count` of a basket's items that are no strangers; ids are hashes, so their order is as good as a random one."""
    return list({event.item: event for event in basket if positions.knows(event.item)}.values())[:count]


def _encode(
    chunk: Sequence[tuple[Moment, Behaviour]], positions: Positions, texts: Texts, config: Config
) -> tuple[Tokens, Tokens, TouchedTokens, np.ndarray, np.ndarray]:
    vocabulary = positions.vocabulary
    users = [moment.row for moment, _ in chunk]
    rows = [moment.categories.get(event.category, CategoryRow()) for moment, event in chunk]
    short = short_tokens(users, positions, texts, config.network.short)
    long = long_tokens(rows, [newest_ts(user) for user in users], positions, texts, config.network.long)
    category = np.array([vocabulary.category(event.category) for _, event in chunk], np.int64)
    item = np.array([positions.of(event.item, row) for (_, event), row in zip(chunk, category.tolist(), strict=True)], np.int64)
    return (
        Tokens(*(array.astype(kind) for array, kind in zip(short, _TOKEN_TYPES, strict=True))),
        Tokens(*(array.astype(kind) for array, kind in zip(long, _TOKEN_TYPES, strict=True))),
        TouchedTokens(*(array.astype(np.int32) for array in touched_tokens(users, vocabulary, config.network.touched))),
        item,
        category,
    )


def _join(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of all arrays, each padded on the right to the widest."""
    width = max(array.shape[1] for array in arrays)
    return np.concatenate([np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in arrays])

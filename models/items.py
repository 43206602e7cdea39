"""The items of a catalogue as arrays: what the item tower reads. Nothing of a model is in here."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from features.events import Item
from models.text import hashed
from models.vocabulary import UNKNOWN, Vocabulary


class Sizes(NamedTuple):
    """How wide the inputs are: rows of the word table, words of a title and a query, dimensions of given embeddings."""

    buckets: int
    title_words: int
    query_words: int
    image: int
    text: int


class ItemFeatures(NamedTuple):
    """What the item tower reads of n items. Rows of zeros mean that a given embedding is missing."""

    item: np.ndarray  # (n,) int64, row of the vocabulary
    category: np.ndarray  # (n,) int64, row of the vocabulary
    words: np.ndarray  # (n, W) int64, hashed words of title and attributes, 0 pads
    image: np.ndarray  # (n, Di) float32
    text: np.ndarray  # (n, Dt) float32

    def take(self, at: np.ndarray) -> "ItemFeatures":
        """The items at the given positions (m,)."""
        return ItemFeatures(*(array[at] for array in self))

    def join(self, others: "ItemFeatures") -> "ItemFeatures":
        """These items, then the others."""
        return ItemFeatures(*(np.concatenate(pair) for pair in zip(self, others, strict=True)))


def item_features(items: Sequence[Item], vocabulary: Vocabulary, sizes: Sizes) -> ItemFeatures:
    """The arrays of items, known or not. A given embedding of another dimension than the trained one counts as missing."""
    words = np.zeros((len(items), sizes.title_words), np.int64)
    image = np.zeros((len(items), sizes.image), np.float32)
    text = np.zeros((len(items), sizes.text), np.float32)
    for n, item in enumerate(items):
        told = [item.title, *(f"{name}={value}" for name, value in sorted(item.attributes.items()))]
        ids = hashed(" ".join(told), sizes.buckets, sizes.title_words)
        words[n, : len(ids)] = ids
        _place(image, n, item.image_embedding)
        _place(text, n, item.text_embedding)
    return ItemFeatures(
        np.array([vocabulary.item(item.item_id) for item in items], np.int64),
        np.array([vocabulary.category(item.category_id) for item in items], np.int64),
        words,
        image,
        text,
    )


def strangers(vocabulary: Vocabulary, sizes: Sizes) -> ItemFeatures:
    """For each row of a category the item of which only that category is known: it stands in for items not in the table."""
    rows = vocabulary.category_rows
    return ItemFeatures(
        np.full(rows, UNKNOWN, np.int64),
        np.arange(rows, dtype=np.int64),
        np.zeros((rows, sizes.title_words), np.int64),
        np.zeros((rows, sizes.image), np.float32),
        np.zeros((rows, sizes.text), np.float32),
    )


def widest(embeddings: Iterable[Sequence[float] | None]) -> int:
    """The dimension of given embeddings, 1 where there are none."""
    return max((len(embedding) for embedding in embeddings if embedding), default=1)


def _place(into: np.ndarray, row: int, embedding: Sequence[float] | None) -> None:
    """Put a given embedding, scaled to length one, into its row."""
    if embedding and len(embedding) == into.shape[1]:
        vector = np.asarray(embedding, np.float64)
        largest = np.abs(vector).max()
        if largest > 0:
            into[row] = vector / largest / np.linalg.norm(vector / largest)

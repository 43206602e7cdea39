"""What the PSU reads of items and queries, as arrays: ids, hashed words and character n-grams, given vectors.

Nothing of a model is in here.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from zlib import crc32

import numpy as np

from features.embeddings import commonest_width, embedding_widths
from features.events import Item
from features.text import split
from models.config import NetworkConfig
from models.encoding.vocabulary import FIRST, UNKNOWN, Vocabulary


class Contents(NamedTuple):
    """The modalities of n items. Row UNKNOWN of the vocabulary, or a row of zeros, means that the modality is missing."""

    item: np.ndarray  # (n,) int64, row of the vocabulary
    title: np.ndarray  # (n, W) int32, hashed ids of the title, 0 pads
    attributes: np.ndarray  # (n, A) int32, hashed attributes, the category among them, 0 pads
    image: np.ndarray  # (n, Di) float32
    text: np.ndarray  # (n, Dt) float32

    def take(self, at: np.ndarray) -> "Contents":
        """The items at the given positions (m,), their titles cut to the longest."""
        taken = Contents(*(array[at] for array in self))
        return taken._replace(title=trim(taken.title))

    def join(self, others: "Contents") -> "Contents":
        """These items, then the others."""
        return Contents(*(np.concatenate(pair) for pair in map(_as_wide, self, others)))


class Widths(NamedTuple):
    """Dimensions of given vectors: Di of images, Dt of texts; 1 where there are none."""

    image: int = 1
    text: int = 1

    @classmethod
    def of(cls, items: Sequence[Item]) -> "Widths":
        """The commonest that usable embeddings of items have: those of another width are ignored."""
        widths = embedding_widths(items)
        return cls(commonest_width(widths["image"]), commonest_width(widths["text"]))


def contents(items: Sequence[Item], vocabulary: Vocabulary, config: NetworkConfig, widths: Widths) -> Contents:
    """The arrays of items, known or not. A given vector of another dimension than those of `widths` counts as missing."""
    told = [[f"{name}={value}" for name, value in [("category", item.category_id), *sorted(item.attributes.items())]] for item in items]
    return Contents(
        np.array([vocabulary.item(item.item_id) for item in items], np.int64),
        padded([pieces(item.title, config)[: config.title_ids] for item in items]),
        padded([[_bucket(word, config.attribute_buckets) for word in words[: config.attribute_ids]] for words in told]),
        given([item.image_embedding for item in items], widths.image),
        given([item.text_embedding for item in items], widths.text),
    )


def strangers(vocabulary: Vocabulary, config: NetworkConfig, widths: Widths) -> Contents:
    """For each row of a category the item of which only that category is known: it stands in for items not in the table.

    Those of padding and of the unknown category are nothing at all.
    """
    rows = vocabulary.category_rows
    attributes = np.zeros((rows, 1), np.int32)
    attributes[FIRST:, 0] = [_bucket(f"category={category}", config.attribute_buckets) for category in vocabulary.categories]
    images, texts = np.zeros((rows, widths.image), np.float32), np.zeros((rows, widths.text), np.float32)
    return Contents(np.full(rows, UNKNOWN, np.int64), np.zeros((rows, 1), np.int32), attributes, images, texts)


def query_words(texts: Sequence[str], config: NetworkConfig) -> np.ndarray:
    """Hashed ids (n, W) int32 of queries, 0 pads; a query without a letter or digit is all padding."""
    return padded([pieces(text, config)[: config.query_ids] for text in texts])


def pieces(text: str, config: NetworkConfig) -> list[int]:
    """The hashed ids of a text, in [1, buckets): its words and the character n-grams of scripts without spaces
    (features.text.split), then the n-grams of each word with its ends marked.
    """
    words, characters = split(text)
    ids = [_bucket(part, config.buckets) for part in (words + characters if config.words else characters)]
    return ids + [_bucket(part, config.buckets) for size in config.grams for word in words for part in grams(word, size)]


def grams(word: str, size: int) -> list[str]:
    """The character n-grams of a word with its ends marked; a shorter one is its own only n-gram.

    >>> grams("cat", 4)
    ['#cat', 'cat#']
    """
    marked = f"#{word}#"
    return [marked[at : at + size] for at in range(max(1, len(marked) - size + 1))]


def padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Lists of ids as an array (n, longest) int32, at least one wide, 0 pads."""
    array = np.zeros((len(rows), max(1, max(map(len, rows), default=0))), np.int32)
    for n, row in enumerate(rows):
        array[n, : len(row)] = row
    return array


def given(vectors: Sequence[Sequence[float] | None], width: int) -> np.ndarray:
    """Given vectors, as float32 keeps them, scaled to length one, (n, width) float32.

    Zeros where there is none, one of another dimension, or one that float32 cannot keep.
    """
    array = np.zeros((len(vectors), width))
    for n, vector in enumerate(vectors):
        if vector and len(vector) == width:
            array[n] = vector
    with np.errstate(over="ignore"):
        array = array.astype(np.float32).astype(np.float64)
    array[~np.isfinite(array).all(1)] = 0
    array /= np.maximum(np.abs(array).max(1, initial=0, keepdims=True), 1e-300)  # so that squares stay finite
    found: np.ndarray = (array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-300)).astype(np.float32)
    return found


def trim(words: np.ndarray) -> np.ndarray:
    """Ids (n, W) without the columns at the right that only pad; one column at least."""
    used = np.flatnonzero((words != 0).any(0))
    return words[:, : int(used[-1]) + 1 if len(used) else 1]


def _as_wide(one: np.ndarray, other: np.ndarray) -> list[np.ndarray]:
    """Two arrays, (n, W) each or (n,) each, the narrower padded with zeros on the right."""
    if one.ndim == 1:
        return [one, other]
    wide = max(one.shape[1], other.shape[1])
    return [np.pad(array, ((0, 0), (0, wide - array.shape[1]))) for array in (one, other)]


@lru_cache(maxsize=262_144)
def _bucket(part: str, buckets: int) -> int:
    return 1 + crc32(part.encode("utf-8", "surrogatepass")) % (buckets - 1)

"""Embeddings that item events contain, as float32, and their widths."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from features.events import Item

Modality = Literal["image", "text"]
UNUSABLE = 0  # the width of an embedding that is empty, all zeros, or beyond float32


def given_embeddings(item: Item) -> dict[Modality, Sequence[float]]:
    """The embeddings in an item event, by modality."""
    both: tuple[tuple[Modality, Sequence[float] | None], ...] = (("image", item.image_embedding), ("text", item.text_embedding))
    return {modality: vector for modality, vector in both if vector is not None}


def packed_embedding(vector: Sequence[float] | None) -> bytes:
    """An embedding as little-endian float32; empty if it is absent, all zeros, or beyond float32."""
    if not vector:
        return b""
    with np.errstate(over="ignore"):
        kept = np.asarray(vector, np.float64).astype("<f4") + np.float32(0)  # turns -0.0 into 0.0
    return kept.tobytes() if np.isfinite(kept).all() and kept.any() else b""


def width_of(vector: Sequence[float]) -> int:
    """The number of dimensions of a usable embedding, else UNUSABLE."""
    return len(packed_embedding(vector)) // 4


def embedding_widths(items: Iterable[Item]) -> dict[Modality, Counter[int]]:
    """The number of items per embedding width, by modality; UNUSABLE counts those that cannot be used."""
    found: dict[Modality, Counter[int]] = {"image": Counter(), "text": Counter()}
    for item in items:
        for modality, vector in given_embeddings(item).items():
            found[modality][width_of(vector)] += 1
    return found


def commonest_width(widths: Counter[int]) -> int:
    """The most common width of the usable embeddings, the greatest on a tie; 1 without embeddings."""
    return max((count, width) for width, count in [(1, 0), *widths.items()] if width != UNUSABLE)[1]


def ignored_embeddings(widths: Mapping[Modality, Counter[int]], used: Mapping[str, int]) -> list[str]:
    """A sentence for each modality with embeddings of a width other than the one in use."""
    told = []
    for modality, counted in widths.items():
        others = {width: count for width, count in sorted(counted.items()) if width != used[modality]}
        if others:
            named = ", ".join(f"{count:,} {f'of {width} numbers' if width else 'unusable'}" for width, count in others.items())
            told.append(f"{modality} embeddings: {counted[used[modality]]:,} of {used[modality]} numbers are used, {named} are ignored")
    return told

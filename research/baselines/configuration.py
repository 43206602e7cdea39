"""What is tuned: one configuration, and the declared space of each rival."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Configuration(NamedTuple):
    """Settings of one training. Those that a model has no use for are left alone."""

    dim: int = 128
    length: int = 50
    rate: float = 2e-3
    negatives: int = 1024
    temperature: float = 0.1
    decay: float = 0.0
    dropout: float = 0.2
    batch: int = 512
    blocks: int = 2
    heads: int = 1
    interests: int = 4
    layers: int = 0
    categories: bool = False
    cosine: bool = True
    copying: bool = True


Space = Mapping[str, tuple[Any, ...]]
SHARED: Space = {
    "dim": (32, 64, 128),
    "length": (20, 50, 100),
    "rate": (5e-4, 1e-3, 2e-3, 4e-3),
    "negatives": (512, 1024, 4096),
    "temperature": (0.05, 0.07, 0.1, 0.2),
    "decay": (0.0, 1e-6, 1e-5),
}
INTERESTS: Space = {**SHARED, "interests": (2, 4, 8)}
SPACES: Mapping[str, Space] = {
    "sasrec": {**SHARED, "dropout": (0.1, 0.2, 0.5), "blocks": (1, 2), "heads": (1, 2), "cosine": (True, False), "copying": (True, False)},
    "gru4rec": {**SHARED, "dropout": (0.0, 0.2, 0.5), "cosine": (True, False)},
    "youtubednn": {**SHARED, "dropout": (0.0, 0.2), "layers": (0, 1, 2), "categories": (False, True)},
    "mind": {**INTERESTS, "categories": (False, True)},
    "comirec": {**INTERESTS, "categories": (False, True)},
    "sine": INTERESTS,
}
FIRST: Mapping[str, Configuration] = {
    "sasrec": Configuration(dropout=0.5),
    "gru4rec": Configuration(rate=4e-3),
    "youtubednn": Configuration(negatives=512, temperature=0.07, dropout=0.0),
    "mind": Configuration(dim=64, rate=4e-3),
    "comirec": Configuration(dim=64, rate=4e-3, interests=8),
    "sine": Configuration(dim=64),
}


def draw(name: str, trials: int, seed: int) -> list[Configuration]:
    """The rival's first configuration and `trials` - 1 random ones of the rival's space, all different as far as there are so many."""
    rng = np.random.default_rng(seed)
    drawn = {FIRST[name]: None}
    for _ in range(10 * trials):
        if len(drawn) >= trials:
            break
        drawn[Configuration(**{key: values[rng.integers(len(values))] for key, values in SPACES[name].items()})] = None
    return list(drawn)

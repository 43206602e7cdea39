"""Item vectors that a model learned, for benchmarks that must not rest on drawn ones alone; trained once a run."""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench import parts
from features.events import Click, Order
from models import bundle
from models.config import Config
from models.training.train import train

CONFIG = Config().replace(dim=64, epochs=1, per_user=10, subspaces=16, holdout=0.0)
EVENTS = 100_000


class Catalogue(NamedTuple):
    """Items with vectors (V, d) of unit length, and what users did: positions of items, one user after another, in time order."""

    name: str
    vectors: np.ndarray
    categories: list[str]
    events: np.ndarray  # (E,) positions


def catalogue(options: argparse.Namespace, folder: Path) -> Catalogue:
    """The items of the events that the benchmarks read, with the vectors of a short training (d = 64, one pass)."""
    data = parts.load_data(options.data, options.events or EVENTS)
    where = folder / "trained"
    if not where.exists():
        print("  training on", data.name, flush=True)
        bundle.save(train(data.events, [], CONFIG, 0), where)
    items = bundle.load(where).items
    at = {item: position for position, item in enumerate(items.ids)}
    done: dict[str, list[int]] = {}
    for event in data.events:
        if isinstance(event, Click):
            done.setdefault(event.user_id, []).append(at[event.item_id])
        elif isinstance(event, Order):
            done.setdefault(event.user_id, []).extend(at[line.item_id] for line in event.lines)
    return Catalogue(data.name, items.vectors, list(items.categories), np.concatenate([*done.values()]))

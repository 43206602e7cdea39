"""Changes on their way in: checked and brought into arrays, with codes of every generation held."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Codebook, Codes, Floats
from models.errors import GenerationError
from models.index.changes import Upsert
from models.index.rows import Ids, Rows, empty
from models.index.snapshots import Snapshot


def accepted(now: Snapshot, changes: Sequence[Upsert], items: Ids, categories: Ids) -> Rows:
    """Rows of changes of different items; names that are new get numbers, but only where all is well.

    Raises:
        GenerationError: a code of a generation that is not held; ValueError: a vector, code, parts or price of another shape, or
            not finite.
    """
    if not changes:
        return empty(now.base.rows)
    stored, serving = now.base.rows, now.codebooks[now.generation]
    for change in changes:
        if change.generation not in now.codebooks:
            raise GenerationError(f"the code of item {change.item!r}", change.generation, now.codebooks)
    vectors = _stacked("vector", stored.vectors.shape[1], [(change.item, change.vector) for change in changes])
    parts = None
    if stored.parts is None:
        if any(change.parts is not None and not np.array_equal(change.parts, change.vector) for change in changes):
            raise ValueError("an item has parts beside its vector, but this index was made without any")
    else:
        parts = _stacked("parts", serving.dim, [(c.item, c.vector if c.parts is None else c.parts) for c in changes])
    coded = vectors if parts is None else parts
    codes = {name: _codes(changes, coded, codebook) for name, codebook in now.codebooks.items()}
    prices = _prices(changes)
    available = np.array([change.available for change in changes], dtype=np.bool_)
    lists = categories.add(change.category for change in changes)
    return Rows(items.add(change.item for change in changes), lists, vectors, prices, available, codes, parts)


def filled(values: Any, n: int, missing: Any, dtype: type) -> NDArray[Any]:
    """An array (n,) of values, or of one that stands for all where there are none.

    Raises:
        ValueError: another number, or not finite.
    """
    if values is None:
        return np.full(n, missing, dtype=dtype)
    found: NDArray[Any] = np.asarray(values, dtype=dtype)
    if found.shape != (n,) or not np.isfinite(found).all():
        raise ValueError(f"{n} items, but values of shape {found.shape}, or not all of them finite")
    return found


def _prices(changes: Sequence[Upsert]) -> Floats:
    """Prices (n,) float32."""
    with np.errstate(over="ignore"):  # what overflows float32 is infinite then, and refused
        prices = np.array([change.price for change in changes], dtype=np.float64).astype(np.float32)
    if not np.isfinite(prices).all():
        wrong = changes[int(np.flatnonzero(~np.isfinite(prices))[0])]
        raise ValueError(f"the price of item {wrong.item!r} must be finite in float32, got {wrong.price}")
    return prices


def _codes(changes: Sequence[Upsert], coded: Floats, codebook: Codebook) -> Codes:
    """Codes (n, P) of one generation: given ones where they are of it, others made here."""
    given = [(change.item, change.code) for change in changes if change.generation == codebook.generation]
    mine = np.fromiter((change.generation == codebook.generation for change in changes), np.bool_, len(changes))
    codes = np.empty((len(changes), codebook.subspaces), dtype=np.uint8)
    if given:
        codes[mine] = _stacked("code", codebook.subspaces, given, np.uint8)
    if len(given) < len(changes):
        codes[~mine] = codebook.encode(coded[~mine])
    return codes


def _stacked(what: str, width: int, values: Sequence[tuple[str, Any]], dtype: type = np.float32) -> NDArray[Any]:
    """Values (n, width) of items."""
    found: NDArray[Any] = np.empty((len(values), width), dtype=dtype)
    for place, (item, value) in enumerate(values):
        if np.shape(value) != (width,):
            raise ValueError(f"the {what} of item {item!r} must be ({width},), got {np.shape(value)}")
        found[place] = value
    if dtype is np.float32 and not np.isfinite(found).all():
        item = values[int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])][0]
        raise ValueError(f"the {what} of item {item!r} must be finite")
    return found

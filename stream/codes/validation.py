"""Checks of a decoded item code: an invalid one would crash an index or the code manager."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from models.codes.codebook import Codebook
from stream.kafka.messages import ItemCode

FLOAT32_MAX = float(np.finfo(np.float32).max)


class Fault(StrEnum):
    """Why an item code is skipped; also the label of the metric."""

    WRONG_WIDTH = "wrong_width"
    NOT_FINITE = "not_finite"
    WRONG_CODE = "wrong_code"


class Shapes(NamedTuple):
    """The shapes of a bundle's item codes: d of vectors, D of parts (None: codes quantise the vectors), and the codebooks held.

    `own` is the bundle's own codebook: that of a code without a name.
    """

    dim: int
    parts: int | None
    codebooks: Mapping[str, Codebook]
    own: str


def fault_of(code: ItemCode, shapes: Shapes) -> Fault | None:
    """What is wrong with an item code; None if it is valid."""
    vector, parts = _floats(code.vector), _floats(code.parts)
    if vector is None or parts is None or len(vector) != shapes.dim:
        return Fault.WRONG_WIDTH
    if shapes.parts is None:
        if len(parts) and not np.array_equal(parts, vector):
            return Fault.WRONG_WIDTH
    elif (len(parts) or len(vector)) != shapes.parts:
        return Fault.WRONG_WIDTH
    if not (np.isfinite(vector).all() and np.isfinite(parts).all() and abs(code.price) <= FLOAT32_MAX):
        return Fault.NOT_FINITE
    return code_fault(code.code, shapes.codebooks.get(code.codebook or shapes.own), shapes)


def code_fault(code: bytes, codebook: Codebook | None, shapes: Shapes) -> Fault | None:
    """What is wrong with the bytes of a code; for a codebook that is not held only their number is checked."""
    subspaces = next(iter(shapes.codebooks.values())).subspaces
    if len(code) != subspaces:
        return Fault.WRONG_WIDTH
    return Fault.WRONG_CODE if codebook is not None and max(code) >= codebook.size else None


def _floats(packed: bytes) -> np.ndarray | None:
    """The numbers (n,) of little-endian float32 bytes; None if they are truncated."""
    return None if len(packed) % 4 else np.frombuffer(packed, "<f4")

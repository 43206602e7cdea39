"""Codes of more than one codebook beside each other: made here, so that serving can change from one to the other at once."""

from collections.abc import Mapping

import numpy as np

from models.codes.codebook import Codebook, Codes
from models.errors import GenerationError
from models.index.rows import Ids, Numbers, Rows
from models.index.snapshots import Snapshot


def given(changed: Mapping[str, Codes], ids: Ids, codebook: Codebook) -> tuple[Numbers, Codes]:
    """Numbers, ascending, and codes (m, P) of the items among `changed` that are known.

    Raises:
        ValueError: a code of another width.
    """
    numbers = ids.find(changed)
    codes = np.empty((len(changed), codebook.subspaces), dtype=np.uint8)
    for place, (item, code) in enumerate(changed.items()):
        if np.shape(code) != (codebook.subspaces,):
            raise ValueError(f"the code of item {item!r} must be ({codebook.subspaces},), got {np.shape(code)}")
        codes[place] = code
    order = np.argsort(numbers, kind="stable")[np.count_nonzero(numbers < 0) :]
    return numbers[order], codes[order]


def codes(now: Snapshot, rows: Rows, codebook: Codebook, known: tuple[Numbers, Codes], unchanged_from: str | None) -> Codes:
    """Codes (n, P) of rows under a codebook: those known, of others those of `unchanged_from`, or made here where that is None.

    Raises:
        GenerationError: `unchanged_from` is not held; ValueError: a codebook of another d or, with it, another P.
    """
    serving = now.codebooks[now.generation]
    if codebook.dim != serving.dim:
        raise ValueError(f"the codebook is for {codebook.dim} dimensions, the index codes {serving.dim}")
    numbers, taken = known
    place = np.minimum(np.searchsorted(numbers, rows.numbers), max(len(numbers) - 1, 0))
    here = numbers[place] == rows.numbers if len(numbers) else np.zeros(rows.n, dtype=np.bool_)
    if unchanged_from is None:
        found = np.empty((rows.n, codebook.subspaces), dtype=np.uint8)
        found[~here] = codebook.encode(rows.coded if not here.any() else rows.coded[~here])
    else:
        check(now, "the codes to keep", unchanged_from)
        if now.codebooks[unchanged_from].subspaces != codebook.subspaces:
            raise ValueError(f"codes of {now.codebooks[unchanged_from].subspaces} bytes cannot be kept under one of {codebook.subspaces}")
        found = rows.codes[unchanged_from].copy()
    if len(numbers):
        found[here] = taken[place[here]]
    return found


def check(now: Snapshot, what: str, generation: str) -> None:
    """That a generation is held.

    Raises:
        GenerationError: it is not.
    """
    if generation not in now.codebooks:
        raise GenerationError(what, generation, now.codebooks)

"""Batches of uninterpreted rows; and those of parquet files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from features.errors import SourceError

BATCH_ROWS = 65_536

Pick = Callable[[Sequence[str]], Sequence[str]]  # selects from the names of columns


class Raw(NamedTuple):
    """Rows: their numbers in the file (from 1), and the selected columns by name."""

    rows: np.ndarray  # (n,) int64
    columns: Mapping[str, pa.Array]


def parquet_names(path: Path) -> list[str]:
    """The names of the columns of a parquet file.

    Raises:
        SourceError: it cannot be read, or has two columns of the same name.
    """
    try:
        names: list[str] = pyarrow.parquet.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path} starts like parquet but cannot be read ({error}): is it complete?") from error
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SourceError(f"{path} has several columns called {', '.join(twice)}", "rename all but one of them")
    return names


def scan_parquet(path: Path, pick: Pick) -> Iterator[Raw]:
    """The rows of a parquet file in its order, with their types.

    Raises:
        SourceError: it cannot be read.
    """
    names = list(pick(parquet_names(path)))
    first = 1
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=names):
                yield Raw(np.arange(first, first + len(batch)), {name: batch[name] for name in names})
                first += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path} cannot be read after row {first - 1}: {error}; is it complete?") from error

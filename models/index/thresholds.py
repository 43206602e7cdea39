"""From which size on what is done: the thresholds of an index, and what an item costs in memory."""

from typing import NamedTuple


class Sizes(NamedTuple):
    """Thresholds. The defaults are those measured for a million items of 64 dimensions (docs/adr/0009-cells-and-fastscan.md)."""

    exact: int = 25_000  # up to so many items everything is compared exactly
    cell: int = 1_024  # items a cell of a category aims at; a category of one cell is compared exactly
    recall: float = 0.975  # share of the true hits that a trial of the scan must find; above 1: all cells are scanned
    segment: int = 4_096  # changed items from which on a compaction is due
    overdue: int = 4  # at so many times that, `apply` compacts itself


def bytes_per_item(
    dim: int, subspaces: int, generations: int = 1, parts: int = 0, exact: bool = False, cell: int = 1_024
) -> dict[str, float]:
    """Bytes that an item takes in the arrays of an index, by array, for vectors of `dim` dimensions, codes of `subspaces` bytes.

    A name costs a Python string (49 bytes and its characters; here 12), a place in the array of names with an eighth to spare, and an
    entry with its integer in the dictionary (at worst two thirds empty). While a compaction runs, all arrays but names are there twice.
    """
    nibbles = (dim + 1) // 2
    arrays = {
        "vectors": 4.0 * dim,
        "parts": 4.0 * parts,
        "codes": float(subspaces * generations),
        "numbers, categories, places": 12.0,
        "prices, available, alive": 6.125,
        "names": 49 + 12 + 9 + 32 + 80.0,
    }
    if not exact:
        arrays["scan codes, ordered and packed"] = 2.0 * nibbles
        arrays["scan rows"] = 8.0
        arrays["centroids"] = 2 * 4.0 * dim / cell
    return arrays

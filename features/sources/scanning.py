"""The raw rows of a file, whatever its format."""

from collections.abc import Iterator
from pathlib import Path

from features.sources import delimited, objects
from features.sources.formats import Detected, Format
from features.sources.raw import Pick, Raw, parquet_names, scan_parquet
from features.sources.refusals import Refusals


def names(path: Path, detected: Detected) -> list[str]:
    """The column names of a file; for JSON, those of its first objects.

    Raises:
        SourceError: the file cannot be read.
    """
    if detected.format is Format.PARQUET:
        return parquet_names(path)
    if detected.format in (Format.JSON_LINES, Format.JSON_ARRAY):
        return objects.names_of(objects.head(path, detected))
    return list(delimited.TAOBAO_COLUMNS if detected.format is Format.TAOBAO_CSV else detected.header)


def scan(path: Path, detected: Detected, refusals: Refusals, pick: Pick) -> Iterator[Raw]:
    """The rows of a file in its order, with the columns that `pick` selects. Rows that cannot be read are refused.

    `pick` is called before the first row, and again when JSON contains further names.

    Raises:
        SourceError: the file cannot be read.
    """
    if detected.format is Format.PARQUET:
        return scan_parquet(path, pick)
    if detected.format in (Format.JSON_LINES, Format.JSON_ARRAY):
        return objects.scan(path, detected, refusals, pick)
    return delimited.scan(path, detected, refusals, pick)

"""Which format a file of events has, told by its content, and where that says nothing by its name."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import pyarrow as pa

from features.events import Refusal

Report = Callable[[Refusal], None]  # told of each row that is no event: position from 1, reason, sentence


class BadSource(ValueError):
    """The file is in no known format, lacks a column, or holds a row that is no event and nobody asked for reports."""


class Format(StrEnum):
    """Formats that `features.sources` reads. Text files may be compressed (.gz, .zst, .bz2)."""

    PARQUET = "parquet"
    TAOBAO_CSV = "taobao-csv"
    JSON_LINES = "json-lines"


def detect(path: Path) -> Format:
    """The format of a file. Raises BadSource with what is known, FileNotFoundError where there is no file."""
    with pa.input_stream(str(path), compression="detect") as stream:
        head: bytes = stream.read(4096)
    if head.startswith(b"PAR1"):
        return Format.PARQUET
    if head.lstrip().startswith(b"{") or ".jsonl" in path.suffixes:
        return Format.JSON_LINES
    if head.split(b"\n", 1)[0].count(b",") == 4:
        return Format.TAOBAO_CSV
    raise BadSource(f"{path} is none of: {', '.join(Format)} (UserBehavior.csv has 5 fields a line and no header)")

"""Text with one record per line. Quoted fields may contain delimiters, quotes and line ends.

Arrow reads blocks of whole lines. Blocks that it cannot read, and those with quoted line ends, are parsed record by record,
so that a broken record affects only itself.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from features.errors import SourceError
from features.sources.formats import BOM, Detected, Format, open_bytes
from features.sources.raw import Pick, Raw
from features.sources.refusals import RefusalReason, Refusals

BLOCK_BYTES = 4 << 20
MOST_RECORD_BYTES = 1 << 20
MOST_RECORD_LINES = 1_000
MOST_LINE_BYTES = 32 << 20
TAOBAO_COLUMNS = ("user", "item", "category", "kind", "time")


def scan(path: Path, detected: Detected, refusals: Refusals, pick: Pick) -> Iterator[Raw]:
    """The records of a file in its order, each numbered by its first line; all columns are text.

    Records that are not UTF-8, or differ from the header in their number of fields, are refused. Blank lines are skipped, but counted.
    """
    names = TAOBAO_COLUMNS if detected.format is Format.TAOBAO_CSV else detected.header
    blocks = _Blocks(names, detected.delimiter, pick(names), refusals)
    with open_bytes(path, detected.compression) as stream:
        if stream.peek(3)[:3] == BOM:  # type: ignore[attr-defined]
            stream.read(3)
        if detected.format is Format.DELIMITED:
            while not stream.readline().strip():
                blocks.line += 1
            blocks.line += 1
        rest = b""
        while block := stream.read(BLOCK_BYTES):
            head, newline, tail = (rest + block).rpartition(b"\n")
            raw, rest = blocks.parse(head + newline, last=False) if newline else (None, b"")
            rest += tail
            if len(rest) > MOST_LINE_BYTES:
                raise SourceError(f"{path}: line {blocks.line} is longer than {MOST_LINE_BYTES >> 20} MiB", "write one row per line")
            if raw is not None:
                yield raw
        if rest and (raw := blocks.parse(rest, last=True)[0]) is not None:
            yield raw


class _Record(NamedTuple):
    """The fields of a record, or what is wrong with it (blank: neither), and its number of lines (0: a quote is still open at the end)."""

    fields: list[str] | None
    lines: int
    wrong: tuple[RefusalReason, str] | None


class _Blocks:
    """Parses blocks of lines one after the other. `line` is the number of the next line."""

    def __init__(self, names: Sequence[str], delimiter: str, wanted: Sequence[str], refusals: Refusals) -> None:
        self.line = 1
        self._names, self._delimiter, self._wanted, self._refusals = list(names), delimiter, list(wanted), refusals

    def parse(self, block: bytes, last: bool) -> tuple[Raw | None, bytes]:
        """The valid records of whole lines, and the bytes of a record that continues after them (none if they are the `last`)."""
        if (table := self._quickly(block)) is not None:
            rows = np.arange(self.line, self.line + len(table))
            self.line += len(table)
            return Raw(rows, {name: table[name].combine_chunks() for name in self._wanted}), b""
        return self._slowly(block, last)

    def _quickly(self, block: bytes) -> pa.Table | None:
        """The block parsed by Arrow; None if that would not give one record per line."""
        if not block or block[:1] in b"\r\n" or b"\n\n" in block or b"\n\r\n" in block:
            return None
        quoted = b'"' in block
        if quoted and any(line.count(b'"') % 2 for line in block.split(b"\n")):
            return None
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        try:
            block.decode()
            table = pyarrow.csv.read_csv(
                pa.BufferReader(block),
                pyarrow.csv.ReadOptions(use_threads=False, column_names=self._names, block_size=len(block) + 1),
                pyarrow.csv.ParseOptions(delimiter=self._delimiter, quote_char='"' if quoted else False, ignore_empty_lines=False),
                pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(self._wanted, pa.string()), include_columns=self._wanted, strings_can_be_null=False
                ),
            )
        except (UnicodeDecodeError, pa.ArrowInvalid):
            return None
        return table if len(table) == lines else None

    def _slowly(self, block: bytes, last: bool) -> tuple[Raw | None, bytes]:
        lines = block.removesuffix(b"\n").split(b"\n")
        rows: list[int] = []
        records: list[list[str]] = []
        at = 0
        while at < len(lines):
            record = self._record(lines[at : at + MOST_RECORD_LINES])
            left = len(lines) - at
            if record.lines == 0 and not last and left < MOST_RECORD_LINES and sum(map(len, lines[at:])) < MOST_RECORD_BYTES:
                break  # the record may end in the next block
            if record.fields is not None:
                rows.append(self.line + at)
                records.append(record.fields)
            elif record.wrong is not None:
                self._refusals.add([self.line + at], *record.wrong)
            at += max(record.lines, 1)
        self.line += at
        rest = b"\n".join(lines[at:]) + b"\n" if at < len(lines) else b""
        if not records:
            return None, rest
        places = [self._names.index(name) for name in self._wanted]
        columns = {self._names[place]: pa.array([fields[place] for fields in records], pa.string()) for place in places}
        return Raw(np.array(rows), columns), rest

    def _record(self, lines: Sequence[bytes]) -> _Record:
        """The record that begins in the first of the lines."""
        if not lines[0].strip():
            return _Record(None, 1, None)
        first = self._fields(lines[0])
        quotes = lines[0].count(b'"')
        if first.wrong is None or quotes % 2 == 0:
            return first
        for end, line in enumerate(lines[1:], 2):
            quotes += line.count(b'"')
            if quotes % 2 == 0:
                whole = self._fields(b"\n".join(lines[:end]))
                return whole._replace(lines=end) if whole.wrong is None else first
        return first._replace(lines=0)

    def _fields(self, record: bytes) -> _Record:
        try:
            text = record.decode().removesuffix("\r")
        except UnicodeDecodeError as error:
            return _Record(None, 1, (RefusalReason.NOT_UTF8, f"{error}: save the file as UTF-8"))
        try:
            [fields] = csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter, strict=True)
        except (csv.Error, ValueError) as error:
            return _Record(None, 1, (RefusalReason.WRONG_SHAPE, f"its quotes do not match ({error})"))
        if len(fields) != len(self._names):
            return _Record(None, 1, (RefusalReason.WRONG_SHAPE, f"{len(fields)} fields instead of {len(self._names)}"))
        return _Record(fields, 1, None)

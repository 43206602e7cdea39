"""JSON files: one value per line, or one array. Each value is returned as bytes; objects can be read as rows of a table."""

import json
import math
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa

from features.errors import SourceError
from features.sources.formats import BOM, Detected, Format, open_bytes
from features.sources.raw import BATCH_ROWS, Pick, Raw
from features.sources.refusals import RefusalReason, Refusals

HEAD_VALUES = 10_000
BLOCK_BYTES = 1 << 20
MOST_VALUE_BYTES = 32 << 20
DEEPEST = 8
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|["{}\[\],]', re.DOTALL)

Numbered = tuple[int, bytes]  # a value, and its line or its position in the array, from 1


def values(path: Path, detected: Detected) -> Iterator[Numbered]:
    """The unparsed values of a file in its order; blank lines are skipped, but counted."""
    with open_bytes(path, detected.compression) as stream:
        if stream.peek(3)[:3] == BOM:  # type: ignore[attr-defined]
            stream.read(3)
        if detected.format is Format.JSON_ARRAY:
            yield from _array(path, stream)
            return
        for number, line in enumerate(iter(lambda: stream.readline(MOST_VALUE_BYTES), b""), 1):
            if stripped := line.strip():
                yield number, stripped


def head(path: Path, detected: Detected) -> list[bytes]:
    """The first values of a file."""
    return [value for _, value in islice(values(path, detected), HEAD_VALUES)]


def names_of(found: list[bytes]) -> list[str]:
    """The column names of the objects, in order of appearance; those of nested objects are joined by dots."""
    names: dict[str, None] = {}
    for value in found:
        if isinstance(row := _parse(value), dict):
            names.update(dict.fromkeys(row))
    return list(names)


def scan(path: Path, detected: Detected, refusals: Refusals, pick: Pick) -> Iterator[Raw]:
    """The objects of a file as rows of text (lists of numbers as lists). `pick` is called again when new names appear."""
    known: dict[str, None] = {}
    wanted: list[str] = []
    numbered = values(path, detected)
    while part := list(islice(numbered, BATCH_ROWS)):
        rows: list[int] = []
        objects: list[dict[str, Any]] = []
        for number, value in part:
            found = _parse(value)
            if isinstance(found, dict):
                rows.append(number)
                objects.append(found)
            else:
                refusals.add([number], *found)
        before = len(known)
        for row in objects:
            known.update(dict.fromkeys(row))
        if len(known) > before:
            wanted = list(pick(list(known)))
        for name in wanted:
            rows, objects = _without_lists(name, rows, objects, refusals)
        if rows:
            yield Raw(np.array(rows), {name: _column([row.get(name) for row in objects]) for name in wanted})


def _without_lists(name: str, rows: list[int], objects: list[dict[str, Any]], refusals: Refusals) -> tuple[list[int], list[dict[str, Any]]]:
    """The rows and their objects, without those that have a list or an object in a column of single values."""
    several = [isinstance(row.get(name), list | dict) for row in objects]
    if 2 * sum(several) >= sum(row.get(name) is not None for row in objects):
        return rows, objects
    for number, wrong in zip(rows, several, strict=True):
        if wrong:
            refusals.add([number], RefusalReason.WRONG_SHAPE, f"{name} is a list or an object: write one value")
    kept = [at for at, wrong in enumerate(several) if not wrong]
    return [rows[at] for at in kept], [objects[at] for at in kept]


def _parse(value: bytes) -> dict[str, Any] | tuple[RefusalReason, str]:
    """A flattened object; or the reason why the value is not an object."""
    try:
        found = msgspec.json.decode(value)
    except (msgspec.MsgspecError, RecursionError) as error:
        try:
            found = json.loads(value) if b"NaN" in value else None  # Python writes it, although it is not JSON
        except (ValueError, RecursionError):
            found = None
        if found is None:
            return RefusalReason.BAD_JSON, str(error)
    except UnicodeDecodeError as error:
        return RefusalReason.NOT_UTF8, f"{error}: save the file as UTF-8"
    if not isinstance(found, dict):
        return RefusalReason.WRONG_SHAPE, f"it is {type(found).__name__}, not an object: write objects with a field for each column"
    flat: dict[str, Any] = {}
    _flatten(found, "", flat, DEEPEST)
    return flat


def _flatten(found: dict[str, Any], before: str, into: dict[str, Any], deep: int) -> None:
    for name, value in found.items():
        if isinstance(value, dict) and deep:
            _flatten(value, f"{before}{name}.", into, deep - 1)
        else:
            into[f"{before}{name}"] = value


def _column(found: list[Any]) -> pa.Array:
    if any(isinstance(value, (list, dict)) for value in found):
        try:
            return pa.array([value if isinstance(value, list) else None for value in found], pa.list_(pa.float64()))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return pa.array([[] if isinstance(value, (list, dict)) else None for value in found], pa.list_(pa.null()))
    if all(value is None or isinstance(value, str) for value in found):
        return pa.array(found, pa.string())
    return pa.array([_word(value) for value in found], pa.string())


def _word(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return None if value is None else str(value)


def _array(path: Path, stream: BinaryIO) -> Iterator[Numbered]:
    """The values of a JSON array, one after the other.

    Raises:
        SourceError: the array is not closed, something follows it, or a value is too long.
    """
    splitter = _Splitter()
    number = 0
    while not splitter.closed and (block := stream.read(BLOCK_BYTES)):
        for value in splitter.feed(block):
            number += 1
            yield number, value
        if len(splitter.rest) > MOST_VALUE_BYTES:
            raise SourceError(
                f"{path}: value {number + 1} of the array is longer than {MOST_VALUE_BYTES >> 20} MiB, or its brackets do not match"
            )
    if not splitter.closed:
        raise SourceError(
            f"{path}: the array is not closed after value {number}: is the file complete? (JSON lines would lose one line only)"
        )
    if rest := (splitter.rest + stream.read(1024)).strip():
        raise SourceError(f"{path}: {rest[:40]!r} follows after the array", "write one array, or one object a line")


class _Splitter:
    """Splits the bytes of a JSON array at the commas between its values. `rest` are the bytes not returned yet."""

    def __init__(self) -> None:
        self.rest = b""
        self.closed = False
        self._depth = 0
        self._seen = 0  # bytes of `rest` that were scanned

    def feed(self, block: bytes) -> Iterator[bytes]:
        """The values that end in the next block."""
        buffer, start = self.rest + block, 0
        for token in _TOKEN.finditer(buffer, self._seen):
            mark = token[0]
            if mark == b'"':  # a text that continues after the block
                break
            self._seen = token.end()
            if self._depth == 1 and mark in (b",", b"]"):
                if value := buffer[start : token.start()].strip():
                    yield value
                start = token.end()
                if mark == b"]":
                    self.closed = True
                    break
            elif mark in (b"{", b"["):
                self._depth += 1
                start = token.end() if self._depth == 1 else start
            elif mark in (b"}", b"]"):
                self._depth = max(self._depth - 1, 1)
        self.rest, self._seen = buffer[start:], self._seen - start

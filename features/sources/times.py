"""A column of times as milliseconds since the epoch: the unit is recognised from the values, or the column is refused.

A number is a time between 1990 and 2100 in only one unit (seconds, milliseconds, microseconds, nanoseconds, YYYYMMDD), so each value
identifies its unit. A column with values in several units is refused.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import SourceError
from features.sources.ids import without_placeholders, words
from features.sources.refusals import RefusalReason

EARLIEST_S, LATEST_S = 631_152_000, 4_102_444_800  # 1990-01-01, 2100-01-01
_ISO = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d+)?)?)?\s*(Z|z|UTC|GMT|[+-]\d\d(:?\d\d)?)?$"
_ZONED = r"(Z|:\d\d\S*[+-]\d\d(:?\d\d)?)$"
_NUMBER = r"^\+?\d+(\.\d*)?$"


class Unit(StrEnum):
    """Units of numeric time stamps."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"
    NANOSECONDS = "ns"


_NAMES = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "day": "dates as YYYYMMDD",
    "text": "ISO 8601 text",
}
_PER_SECOND = {Unit.SECONDS: 1, Unit.MILLISECONDS: 1_000, Unit.MICROSECONDS: 1_000_000, Unit.NANOSECONDS: 1_000_000_000}


class Read(NamedTuple):
    """Times of rows: milliseconds (0: none), and the reason why a row has none (empty: it has one)."""

    ts: np.ndarray  # (rows,) int64
    problem: np.ndarray  # (rows,) of RefusalReason or ""
    shown: pa.Array  # (rows,) the values as they are in the file


class Times:
    """Reads a column of times batch by batch, and records the units of its values.

    `unit` fixes the unit of numbers. Text and time stamps without a zone are UTC.
    """

    def __init__(self, column: str, unit: Unit | None = None) -> None:
        self.column = column
        self.without_zone = False
        self._fixed = unit
        self._typed = ""
        self._rows: dict[str, tuple[int, int]] = {}  # by unit: the number of rows, and the first of them

    def read(self, column: pa.Array, rows: np.ndarray) -> Read:
        """The times of a batch; `rows` (n,) are its row numbers.

        Raises:
            SourceError: the column has a type without times.
        """
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        type_ = column.type
        if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
            return self._typed_times(column, rows)
        if pa.types.is_integer(type_):
            there = column.is_valid().to_numpy(zero_copy_only=False)
            numbers = pc.fill_null(column, 0).to_numpy(zero_copy_only=False).astype(np.int64)  # room for milliseconds
            return self._finish(self._numbers(numbers, there, rows), there, column)
        if pa.types.is_float64(type_):
            values = column.to_numpy(zero_copy_only=False)
            there = ~np.isnan(values)
            return self._finish(self._numbers(np.where(there, values, 0.0), there, rows), there, column)
        if pa.types.is_floating(type_):
            raise SourceError(
                f"column {self.column} holds times as {type_}, which has too few digits for times, so they are off by minutes: "
                "write them as whole numbers, float64 or ISO 8601 text"
            )
        if pa.types.is_nested(type_) or pa.types.is_time(type_) or pa.types.is_duration(type_) or pa.types.is_boolean(type_):
            raise SourceError(
                f"column {self.column} holds {type_}, not points in time: give time stamps, numbers since the epoch, or ISO 8601 text"
            )
        return self._text(column, rows)

    def check(self) -> None:
        """Raise SourceError if the rows so far are in several units."""
        if len(self._rows) > 1 and self._fixed is None:
            parts = [f"{_NAMES[unit]} ({count:,} rows, first row {row})" for unit, (count, row) in sorted(self._rows.items())]
            raise SourceError(
                f"column {self.column} mixes units of time: {' and '.join(parts)}: write one unit, or choose one, as in --time-unit ms"
            )

    def sentence(self, reason: RefusalReason, read: Read, at: int) -> str:
        """The sentence for the row at position `at` of a batch that was read: its column, its value and the remedy."""
        if reason is RefusalReason.MISSING_TIME:
            return f"column {self.column} has no time"
        value = _plain(read.shown, at)
        if reason is RefusalReason.BAD_TIME:
            return f"column {self.column}: {value} is not a time: write ISO 8601 (2026-09-21T14:20:00Z) or a number since the epoch"
        if self._typed:
            return f"column {self.column} ({self._typed}): {value} is not between 1990 and 2100: were its numbers in another unit?"
        units = f"as {_NAMES[self._fixed]}" if self._fixed else "in any unit"
        return f"column {self.column}: {value} is not between 1990 and 2100 {units}"

    def __str__(self) -> str:
        found = self._typed or " and ".join(_NAMES[unit] for unit in self._rows) or "no times"
        return f"{found}, UTC assumed" if self.without_zone else found

    def _typed_times(self, column: pa.Array, rows: np.ndarray) -> Read:
        self._typed = str(column.type)
        there = column.is_valid().to_numpy(zero_copy_only=False)
        if pa.types.is_timestamp(column.type):
            self.without_zone |= column.type.tz is None
            unit, factor = Unit(column.type.unit), 1
            numbers = pc.fill_null(pc.cast(column, pa.int64()), 0).to_numpy(zero_copy_only=False)
        elif pa.types.is_date32(column.type):
            unit, factor = Unit.SECONDS, 86_400
            numbers = pc.fill_null(pc.cast(column, pa.int32()), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        else:
            unit, factor = Unit.MILLISECONDS, 1
            numbers = pc.fill_null(pc.cast(column, pa.int64()), 0).to_numpy(zero_copy_only=False)
        ts, good = _in_unit(numbers * factor, unit)
        return self._finish((ts, good & there), there, column)

    def _numbers(self, numbers: np.ndarray, there: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ts, good = np.zeros(len(numbers), np.int64), np.zeros(len(numbers), bool)
        readers: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]]
        readers = {unit: lambda values, unit=unit: _in_unit(values, unit) for unit in ([self._fixed] if self._fixed else Unit)}  # type: ignore[misc]
        if self._fixed is None:
            readers["day"] = _days
        for unit, reader in readers.items():
            found, fits = reader(numbers)
            fits &= there
            if fits.any():
                ts, good = np.where(fits, found, ts), good | fits
                self._met(unit, rows[fits])
        return ts, good

    def _text(self, column: pa.Array, rows: np.ndarray) -> Read:
        text, broken = words(self.column, column)
        text = without_placeholders(text)
        there = text.is_valid().to_numpy(zero_copy_only=False) | broken
        ts, good = np.zeros(len(text), np.int64), np.zeros(len(text), bool)
        number = _holds(pc.match_substring_regex(text, _NUMBER))
        if number.any():
            whole = number & _holds(pc.match_substring_regex(text, r"^\+?\d{1,18}$|^\+?[1-8]\d{18}$"))
            exact = pc.fill_null(pc.cast(pc.if_else(pa.array(whole), text, None), pa.int64()), 0).to_numpy(zero_copy_only=False)
            ts, good = self._numbers(exact, whole, rows)
            if (rest := number & ~whole).any():
                values = pc.fill_null(pc.cast(pc.if_else(pa.array(rest), text, None), pa.float64()), 0.0).to_numpy(zero_copy_only=False)
                more, fits = self._numbers(values, rest, rows)
                ts, good = np.where(fits, more, ts), good | fits
        iso = _holds(pc.match_substring_regex(text, _ISO))
        if iso.any():
            found, fits = self._iso(pc.if_else(pa.array(iso), text, None))
            ts, good = np.where(fits, found, ts), good | fits
            self._met("text", rows[fits])
        return self._finish((ts, good), there, text, unread=there & ~number & ~good)

    def _iso(self, text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        text = pc.replace_substring_regex(text, r"\s*(Z|z|UTC|GMT)$", "Z")
        text = pc.replace_substring_regex(text, r"\s+([+-]\d\d(:?\d\d)?)$", r"\1")
        text = pc.replace_substring_regex(pc.replace_substring(text, ",", "."), r"(\.\d{6})\d+", r"\1")
        zoned = pc.match_substring_regex(text, _ZONED)
        self.without_zone |= bool(pc.any(pc.invert(zoned)).as_py())
        try:
            instants = [
                pc.cast(pc.cast(pc.if_else(mask, text, None), pa.timestamp("us", zone)), pa.int64())
                for mask, zone in ((zoned, "UTC"), (pc.invert(zoned), None))
            ]
            micros = pc.coalesce(*instants)
        except pa.ArrowInvalid:  # one is not a calendar date
            micros = pa.array([_micros(value) for value in text.to_pylist()], pa.int64())
        there = micros.is_valid().to_numpy(zero_copy_only=False)
        ts, good = _in_unit(pc.fill_null(micros, 0).to_numpy(zero_copy_only=False), Unit.MICROSECONDS)
        return ts, good & there

    def _met(self, unit: str, rows: np.ndarray) -> None:
        if len(rows):
            count, first = self._rows.get(unit, (0, int(rows[0])))
            self._rows[unit] = (count + len(rows), min(first, int(rows.min())))

    def _finish(self, found: tuple[np.ndarray, np.ndarray], there: np.ndarray, shown: pa.Array, unread: np.ndarray | None = None) -> Read:
        ts, good = found
        problem = np.full(len(ts), "", object)
        problem[~there] = RefusalReason.MISSING_TIME
        problem[there & ~good] = RefusalReason.IMPLAUSIBLE_TIME
        if unread is not None:
            problem[unread] = RefusalReason.BAD_TIME
        return Read(np.where(good, ts, 0), problem, shown)


def _in_unit(numbers: np.ndarray, unit: Unit) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds (n,) int64, and a mask of numbers (n,) that are plausible times in this unit."""
    per_second = _PER_SECOND[unit]
    good = (numbers >= EARLIEST_S * per_second) & (numbers < LATEST_S * per_second)
    kept = np.where(good, numbers, 0)
    if per_second <= 1_000:
        return np.rint(kept * (1_000 // per_second)).astype(np.int64), good
    return (kept // (per_second // 1_000)).astype(np.int64), good


def _days(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same for dates written as numbers YYYYMMDD."""
    good = (numbers >= 19_900_101) & (numbers <= 20_991_231) & (numbers == np.floor(numbers))
    kept = np.where(good, numbers, 19_900_101).astype(np.int64)
    year, month, day = kept // 10_000, kept // 100 % 100, kept % 100
    good &= (month >= 1) & (month <= 12) & (day >= 1)
    first = (12 * (year - 1970) + np.clip(month, 1, 12) - 1).astype("datetime64[M]")
    date = first.astype("datetime64[D]") + (day - 1)
    good &= date.astype("datetime64[M]") == first
    return date.astype("datetime64[ms]").astype(np.int64), good


def _micros(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) * 1_000_000 + moment.microsecond


def _plain(column: pa.Array, at: int) -> str:
    try:
        value = column[at].as_py()
    except (ValueError, OverflowError):
        return "a time stamp far outside"
    if value is None:
        return "what is not UTF-8"
    return str(value) if isinstance(value, int | float) else repr(str(value))


def _holds(condition: pa.Array) -> np.ndarray:
    found: np.ndarray = pc.fill_null(condition, False).to_numpy(zero_copy_only=False)
    return found

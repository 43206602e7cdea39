"""Columns of ids and words as text: one spelling per id, whatever its type in the file; null if missing."""

import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import SourceError
from features.sources.refusals import RefusalReason

MISSING = (
    "", "nan", "nat", "none", "null", "nil", "undefined", "n/a", "#n/a", "<na>", "\\n", "(not set)", "(not provided)", "(none)", "(null)",
)  # fmt: skip
LONGEST_ID = 128
_MISSING = pa.array(MISSING)
_EXACT = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}  # whole numbers below are exact
_CONTROL = r"[\x00-\x1f\x7f\x{80}-\x{9f}]"
_ROUNDED = re.compile(r"(-?)(\d)\.(\d+)[eE]\+(\d+)")


class TextColumn(NamedTuple):
    """A column as text (null: missing), and a mask of rows that are not UTF-8."""

    text: pa.Array
    broken: np.ndarray  # (rows,) bool


def words(name: str, column: pa.Array) -> TextColumn:
    """A column of any scalar type as text, stripped of white space; an empty text is null.

    Raises:
        SourceError: the column contains lists, structs, or floating-point numbers too large to be exact.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    type_ = column.type
    nothing = np.zeros(len(column), bool)
    if pa.types.is_null(type_):
        return TextColumn(pa.nulls(len(column), pa.string()), nothing)
    if pa.types.is_nested(type_):
        raise SourceError(f"column {name} holds lists or objects ({type_}), not one value per row", "write one row for each of them")
    if pa.types.is_floating(type_):
        return TextColumn(_whole(name, column), nothing)
    if pa.types.is_decimal(type_):
        column = pc.replace_substring_regex(pc.cast(column, pa.string()), r"\.0*$", "")
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_string(type_) or pa.types.is_large_string(type_):
        column, broken = _utf8(column)
    else:
        column, broken = pc.cast(column, pa.string()), nothing
    column = pc.utf8_trim_whitespace(column)
    return TextColumn(pc.if_else(pc.equal(column, ""), None, column), broken)


def ids(name: str, column: pa.Array) -> TextColumn:
    """A column of ids: as `words`, placeholders such as `nan`, `null`, `(not set)` are null, and `101.0` is `101`."""
    text, broken = words(name, column)
    if pa.types.is_integer(column.type):
        return TextColumn(text, broken)
    text = without_placeholders(text)
    if pc.any(pc.ends_with(text, ".0")).as_py():
        text = pc.replace_substring_regex(text, r"^(-?\d+)\.0$", r"\1")
    rounded = pc.match_substring_regex(text, r"^-?\d\.\d+[eE]\+\d+$")
    if pc.any(rounded).as_py():
        text = pa.array([_unrounded(name, value) for value in text.to_pylist()], pa.string())
    return TextColumn(text, broken)


def without_placeholders(text: pa.Array) -> pa.Array:
    """The column with null for texts that stand for a missing value."""
    return pc.if_else(pc.is_in(pc.utf8_lower(text), _MISSING), None, text)


def unfit(name: str, text: pa.Array) -> list[tuple[np.ndarray, RefusalReason, str]]:
    """A mask of ids (rows,) that events cannot contain, the reason, and a sentence."""
    checks = (
        (pc.greater(pc.utf8_length(text), LONGEST_ID), RefusalReason.LONG_ID, f"column {name} is longer than {LONGEST_ID} characters"),
        (
            pc.match_substring_regex(text, _CONTROL),
            RefusalReason.CONTROL_CHARACTER,
            f"column {name} holds a control character, invalid in ids",
        ),
    )
    return [(pc.fill_null(bad, False).to_numpy(zero_copy_only=False), reason, sentence) for bad, reason, sentence in checks]


def _whole(name: str, column: pa.Array) -> pa.Array:
    values = column.to_numpy(zero_copy_only=False).astype(np.float64)
    there = np.isfinite(values)
    limit = _EXACT[column.type]
    if (large := values[there & (np.abs(values) >= limit)]).size:
        raise SourceError(
            f"column {name} holds {large[0]:.0f} as {column.type}, which is exact only below {limit:,}, so different ids may be merged: "
            "write the column as whole numbers or text"
        )
    whole = there & (values == np.floor(values))
    text = pc.cast(pa.array(np.where(whole, values, 0).astype(np.int64), mask=~there), pa.string())
    if (there & ~whole).any():
        text = pc.if_else(pa.array(whole), text, pa.array([repr(value) for value in values.tolist()], mask=~there))
    return text


def _utf8(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    try:
        text = pc.cast(column, pa.string())
        text.validate(full=True)
        return text, np.zeros(len(column), bool)
    except pa.ArrowInvalid:
        values = pc.cast(column, pa.large_binary()).to_pylist()
    decoded = [None if value is None else _decoded(value) for value in values]
    broken = np.array([value is False for value in decoded])
    return pa.array([value or None for value in decoded], pa.string()), broken


def _decoded(value: bytes) -> str | bool:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return False


def _unrounded(name: str, value: str | None) -> str | None:
    """The whole number that `1.234567890123456e+15` stands for.

    Raises:
        SourceError: digits are lost, as in spreadsheets.
    """
    found = None if value is None else _ROUNDED.fullmatch(value)
    if value is None or found is None:
        return value
    sign, first, rest, power = found.groups()
    if len(rest) < int(power) < 16 and len(rest) >= 14:
        rest = rest.ljust(int(power), "0")
    if len(rest) != int(power):
        raise SourceError(
            f"column {name} holds {value}, an id whose last digits a spreadsheet or a floating point number has lost: write it as text"
        )
    return sign + first + rest

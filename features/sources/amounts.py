"""Columns of prices and quantities: numbers, or numbers as people write them."""

import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.sources.ids import without_placeholders, words

HIGHEST_PRICE = 1e15


def numbers(name: str, column: pa.Array) -> np.ndarray:
    """A column as numbers (rows,) float64, NaN for anything else: `1,299.00`, `1.299,00 €` and `$12` are numbers, `—` is not."""
    if _numeric(column):
        values: np.ndarray = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return values
    coded = pc.dictionary_encode(words(name, column).text)
    parsed = np.array([*(number(text) for text in coded.dictionary.to_pylist()), math.nan])
    found: np.ndarray = parsed[pc.fill_null(coded.indices, len(parsed) - 1).to_numpy(zero_copy_only=False)]
    return found


def prices(name: str, column: pa.Array) -> tuple[np.ndarray, int]:
    """Prices (rows,) float64, 0 if absent; and the number of unusable ones: not a number, below 0 or above HIGHEST_PRICE."""
    found = numbers(name, column)
    good = (found >= 0) & (found <= HIGHEST_PRICE)
    there = pc.is_valid(column) if _numeric(column) else without_placeholders(words(name, column).text).is_valid()
    written = there.to_numpy(zero_copy_only=False) & ~(np.isnan(found) if _numeric(column) else False)
    return np.where(good, found, 0.0), int((written & ~good).sum())


def _numeric(column: pa.Array) -> bool:
    return bool(pa.types.is_integer(column.type) or pa.types.is_floating(column.type))


def number(text: str) -> float:
    """The number in a text, NaN if it is not a number."""
    found = re.sub(r"[^\d.,+-]", "", text)
    if not re.fullmatch(r"[+-]?[\d.,]*\d[.,]?", found) or re.search(r"\d\s*[a-zA-Z]+\s*\d", text):
        return math.nan
    comma, point = found.rfind(","), found.rfind(".")
    if comma > point and (point >= 0 or not re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+", found)):
        found = found.replace(".", "").replace(",", ".")
    elif found.count(".") > 1:
        found = found.replace(".", "")
    try:
        return float(found.replace(",", ""))
    except ValueError:
        return math.nan

"""Rows that cannot be used: reasons, counts, and the first few rows."""

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

SHOWN = 5
MOST_VALUES = 50


class RefusalReason(StrEnum):
    """Why a row is refused."""

    MISSING_USER = "missing_user"
    MISSING_ITEM = "missing_item"
    MISSING_TIME = "missing_time"
    MISSING_TEXT = "missing_text"
    UNKNOWN_KIND = "unknown_kind"
    BAD_TIME = "bad_time"
    IMPLAUSIBLE_TIME = "implausible_time"
    FUTURE = "future"
    BEYOND_RETENTION = "beyond_retention"
    LONG_ID = "long_id"
    CONTROL_CHARACTER = "control_character"
    BAD_QUANTITY = "bad_quantity"
    NOT_UTF8 = "not_utf8"
    BAD_JSON = "bad_json"
    WRONG_SHAPE = "wrong_shape"
    OVERSIZED = "oversized"


class Refused(NamedTuple):
    """A row that cannot be used: its number in the file (from 1), the reason, and a sentence for people."""

    row: int
    reason: RefusalReason
    detail: str


class Refusals:
    """The refused rows of a file: counts by reason, counts of unknown kinds by value, and the first rows.

    Memory is bounded: `first` keeps the rows with the lowest numbers, SHOWN per reason.
    """

    def __init__(self) -> None:
        self.counts: Counter[RefusalReason] = Counter()
        self.kinds: Counter[str] = Counter()
        self._first: dict[RefusalReason, list[Refused]] = {}

    def add(self, rows: Iterable[int], reason: RefusalReason, *details: str) -> None:
        """Count rows refused for one reason. `details` are the sentences of the first rows; further rows get the last one."""
        if not (rows := list(rows)):
            return
        self.counts[reason] += len(rows)
        kept = self._first.setdefault(reason, [])
        if len(kept) < SHOWN:
            kept += [Refused(row, reason, details[min(at, len(details) - 1)]) for at, row in enumerate(rows[: SHOWN - len(kept)])]

    def add_kind(self, value: str, times: int) -> None:
        """Count an unknown kind by its value; values beyond MOST_VALUES are counted together."""
        known = value in self.kinds or len(self.kinds) < MOST_VALUES
        self.kinds[value[:64] if known else "(others)"] += times

    @property
    def total(self) -> int:
        """The number of refused rows."""
        return self.counts.total()

    @property
    def first(self) -> list[Refused]:
        """The first refused rows of each reason, by row number."""
        return sorted(refused for kept in self._first.values() for refused in kept)

    def sentence(self) -> str:
        """The counts in words: `unknown_kind 11 (remove_from_cart 11), missing_user 2`."""
        parts = []
        for reason, count in self.counts.most_common():
            values = ""
            if reason is RefusalReason.UNKNOWN_KIND and self.kinds:
                values = " (" + ", ".join(f"{value} {times:,}" for value, times in self.kinds.most_common(5)) + ")"
            parts.append(f"{reason} {count:,}{values}")
        return ", ".join(parts)

"""Tables of events: one row per behaviour, columns found by their names (features.sources.columns), in any format.

Ids may have any type. A missing category is taken from a table of products, else it is `unknown`; a row without user, time, known
kind, or item (for a search: text) is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import SourceError
from features.event_time import DAY_MS, MINUTE_MS, TimeRules
from features.sources import amounts, kinds
from features.sources.columns import EVENTS, Assigned, Role, assign, missing
from features.sources.ids import TextColumn, ids, unfit, words
from features.sources.kinds import ORDER, SEARCH
from features.sources.raw import Raw
from features.sources.refusals import SHOWN, RefusalReason, Refusals
from features.sources.times import Times, Unit

UNKNOWN_CATEGORY = "unknown"
LONGEST_TEXT = 512
MOST_PIECES = 1_000_000
NO_POSITION = -1
OPTIONAL_IDS = {Role.QUERY: "query", Role.ORDER: "order", Role.SESSION: "session"}
_BASE = [
    ("row", pa.int64()),
    ("ts", pa.int64()),
    ("kind", pa.int8()),
    *((name, pa.string()) for name in ("user", "item", "category", "text")),
]
_MORE = [
    *((name, pa.string()) for name in OPTIONAL_IDS.values()),
    ("price", pa.float64()),
    ("quantity", pa.int32()),
    ("position", pa.int32()),
]
PLAIN = pa.schema(_BASE)
FULL = pa.schema([*_BASE, *_MORE])


Check = tuple[np.ndarray, RefusalReason, str | Callable[[int], str]]  # mask of refused rows, reason, sentence (by position in the batch)


class How(NamedTuple):
    """Options of reading a file. `columns`: names of columns by role, before the synonyms; `kind`: the kind of every row; `unit`: of
    numeric times. With `now_ms` (wall clock), rows that the workers would refuse by `rules` are refused here too."""

    columns: Mapping[str, str] = {}
    kind: str | None = None
    unit: Unit | None = None
    now_ms: int | None = None
    rules: TimeRules = TimeRules()


class Categories(NamedTuple):
    """Categories of items, from a table of products; both (n,) text."""

    items: pa.Array
    categories: pa.Array


class Table:
    """Turns the raw batches of one file into rows with one schema, and records the interpretation of its columns."""

    def __init__(self, what: str, how: How, refusals: Refusals, categories: Categories | None = None, names: Sequence[str] = ()) -> None:
        self.notes: list[str] = []
        self.bad_prices = 0
        self.times = Times("time", how.unit)
        self._what, self._how, self._refusals, self._categories = what, how, refusals, categories
        self._columns = Assigned({}, [])
        self._kind = kinds.CLICK
        self._wide = False
        if names:
            self.pick(names)

    @property
    def columns(self) -> Assigned:
        """The roles of the columns, and the unused ones."""
        return self._columns

    @property
    def schema(self) -> pa.Schema:
        """The schema of `take`: the plain one if the file has only the six basic columns."""
        return FULL if self._wide else PLAIN

    def pick(self, names: Sequence[str]) -> list[str]:
        """Select the needed columns.

        Raises:
            SourceError: a needed column is missing or ambiguous.
        """
        found = assign(self._what, names, EVENTS, self._how.columns)
        used, before = found.used, self._columns.used
        if changed := [role for role in before if used[role] != before[role]]:
            role = changed[0]
            raise SourceError(
                f"{self._what} has several columns for {role} ({before[role]}, {used[role]}): "
                f"say which, as in --columns {role}={used[role]}"
            )
        needed = {Role.USER, Role.TIME} | (set() if self._all_searches(used) else {Role.ITEM})
        if lacking := [role for role in EVENTS if role in needed and role not in used]:
            raise missing(self._what, lacking, names, EVENTS)
        if not before:
            self.times = Times(used[Role.TIME], self._how.unit)
            self._choose_kind(used)
            self._wide = bool(used.keys() & {*OPTIONAL_IDS, Role.PRICE, Role.QUANTITY, Role.POSITION})
        self._columns = found
        return list(used.values())

    def widen(self) -> None:
        """Use the full schema, since further columns may appear after the first rows."""
        self._wide = True

    def take(self, raw: Raw) -> pa.Table:
        """The valid rows of a batch: row, ts (ms), kind, user, item, category, text, none null; further columns in the full schema."""
        batch = _Batch(raw, self._columns.used)
        user, item, category = (batch.ids(role) for role in (Role.USER, Role.ITEM, Role.CATEGORY))
        text = batch.words(Role.TEXT)
        further = {name: pc.fill_null(batch.ids(role), "") for role, name in OPTIONAL_IDS.items()} if self._wide else {}
        kind = self._kinds(batch)
        searched = kind == SEARCH
        read = self.times.read(raw.columns[self._columns.used[Role.TIME]], raw.rows)
        checks: list[Check] = [
            *((words_.broken, RefusalReason.NOT_UTF8, f"column {batch.name(role)} is not UTF-8") for role, words_ in batch.read.items()),
            (~_there(user), RefusalReason.MISSING_USER, f"column {batch.name(Role.USER)} has no user"),
            (kind == kinds.UNKNOWN, RefusalReason.UNKNOWN_KIND, f"column {batch.name(Role.KIND)} is not one of {', '.join(kinds.NAMES)}"),
            (~searched & ~_there(item), RefusalReason.MISSING_ITEM, f"column {batch.name(Role.ITEM)} has no item"),
            (searched & ~_there(text), RefusalReason.MISSING_TEXT, "a search without text"),
            (searched & _long(text), RefusalReason.WRONG_SHAPE, f"a search of more than {LONGEST_TEXT} characters"),
            *(check for role, words_ in batch.read.items() if role is not Role.TEXT for check in unfit(batch.name(role), words_.text)),
            *((read.problem == reason, reason, partial(self.times.sentence, reason, read)) for reason in sorted(set(read.problem) - {""})),
            *self._by_rules(read.ts),
        ]  # fmt: skip
        columns = {"ts": read.ts, "kind": kind, "user": user, "text": pc.fill_null(text, ""), **further}
        columns["item"] = pc.fill_null(pc.if_else(pa.array(searched), "", item), "")
        columns["category"] = self._categorised(item, category, searched)
        if self._wide:
            columns |= self._amounts(batch, kind == ORDER, checks)
        good = self._good(raw.rows, checks)
        arrays = [pa.array(raw.rows) if field.name == "row" else _array(columns[field.name], field.type) for field in self.schema]
        return pa.table(arrays, schema=self.schema).filter(pa.array(good))

    def _good(self, rows: np.ndarray, checks: Sequence[Check]) -> np.ndarray:
        good = np.ones(len(rows), bool)
        for bad, reason, sentence in checks:
            if (new := np.flatnonzero(bad & good)).size:
                details = [sentence] if isinstance(sentence, str) else [sentence(int(at)) for at in new[:SHOWN]]
                self._refusals.add(rows[new].tolist(), reason, *details)
                good &= ~bad
        return good

    def _all_searches(self, used: Mapping[StrEnum, str]) -> bool:
        return self._how.kind == "search" or (Role.ITEM not in used and Role.KIND not in used and Role.TEXT in used)

    def _choose_kind(self, used: Mapping[StrEnum, str]) -> None:
        """The kind of rows without one."""
        if self._how.kind is not None:
            self._kind = kinds.code_of(self._how.kind)
        elif Role.KIND not in used:
            self._kind = kinds.CLICK
            if self._all_searches(used):
                self._kind = SEARCH
            elif used.keys() & {Role.ORDER, Role.QUANTITY}:
                self._kind = ORDER
            self.notes.append(f"no column for kind: every row counts as {kinds.NAMES[self._kind]} (--kind says otherwise)")

    def _kinds(self, batch: "_Batch") -> np.ndarray:
        if self._how.kind is not None or Role.KIND not in batch.used:
            return np.full(len(batch.rows), self._kind, np.int8)
        found, unknown = kinds.codes(batch.words(Role.KIND))
        for name, times in unknown.items():
            self._refusals.add_kind(name, times)
        return found

    def _categorised(self, item: pa.Array, category: pa.Array, searched: np.ndarray) -> pa.Array:
        if self._categories is not None and category.null_count:
            place = pc.index_in(item, self._categories.items)
            category = pc.coalesce(category, pc.take(self._categories.categories, place))
        return pc.coalesce(category, pc.if_else(pa.array(searched), "", UNKNOWN_CATEGORY))

    def _by_rules(self, ts: np.ndarray) -> list[Check]:
        now_ms, rules = self._how.now_ms, self._how.rules
        if now_ms is None:
            return []
        name, minutes, days = self.times.column, rules.max_future_ms / MINUTE_MS, rules.retention_ms // DAY_MS
        ahead, old = ts > now_ms + rules.max_future_ms, (ts < now_ms - rules.retention_ms) & (ts > 0)
        return [
            (ahead, RefusalReason.FUTURE, f"column {name} is more than {minutes:g} minutes ahead of the clock"),
            (old, RefusalReason.BEYOND_RETENTION, f"column {name} is older than the retention of {days:,} days"),
        ]

    def _amounts(self, batch: "_Batch", ordered: np.ndarray, checks: list[Check]) -> dict[str, np.ndarray]:
        columns: dict[str, np.ndarray] = {}
        length = len(batch.rows)
        columns["price"] = np.zeros(length)
        if (price := batch.column(Role.PRICE)) is not None:
            columns["price"], bad = amounts.prices(batch.name(Role.PRICE), price)
            self.bad_prices += bad
        quantity = np.ones(length)
        if (pieces := batch.column(Role.QUANTITY)) is not None:
            quantity = np.nan_to_num(np.rint(amounts.numbers(batch.name(Role.QUANTITY), pieces)), nan=1.0)
            wrong = ordered & ((quantity < 1) | (quantity > MOST_PIECES))
            checks.append(
                (
                    wrong,
                    RefusalReason.BAD_QUANTITY,
                    f"column {batch.name(Role.QUANTITY)} is not between 1 and {MOST_PIECES:,}: remove returns",
                )
            )
        columns["quantity"] = np.clip(quantity, 1, MOST_PIECES).astype(np.int32)
        places = np.full(length, np.nan)
        if (position := batch.column(Role.POSITION)) is not None:
            places = amounts.numbers(batch.name(Role.POSITION), position)
        fits = (places >= 0) & (places < 2**31)
        columns["position"] = np.where(fits, places, NO_POSITION).astype(np.int32)
        return columns


class _Batch:
    """Columns of a batch by role; `read` contains those that were used."""

    def __init__(self, raw: Raw, used: Mapping[StrEnum, str]) -> None:
        self.rows, self.used = raw.rows, used
        self.read: dict[Role, TextColumn] = {}
        self._columns = raw.columns

    def name(self, role: Role) -> str:
        return self.used.get(role, role)

    def column(self, role: Role) -> pa.Array | None:
        return self._columns[self.used[role]] if role in self.used else None

    def ids(self, role: Role) -> pa.Array:
        return self._kept(role, ids)

    def words(self, role: Role) -> pa.Array:
        return self._kept(role, words)

    def _kept(self, role: Role, reader: Callable[[str, pa.Array], TextColumn]) -> pa.Array:
        column = self.column(role)
        if column is None:
            return pa.nulls(len(self.rows), pa.string())
        self.read[role] = reader(self.name(role), column)
        return self.read[role].text


def _array(column: pa.Array | np.ndarray, type_: pa.DataType) -> pa.Array:
    return pa.array(column, type_) if isinstance(column, np.ndarray) else column


def _there(column: pa.Array) -> np.ndarray:
    found: np.ndarray = column.is_valid().to_numpy(zero_copy_only=False)
    return found


def _long(column: pa.Array) -> np.ndarray:
    found: np.ndarray = pc.fill_null(pc.greater(pc.utf8_length(column), LONGEST_TEXT), False).to_numpy(zero_copy_only=False)
    return found

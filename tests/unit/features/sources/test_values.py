"""Times, ids and amounts in every type that files give them."""

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features import sources
from features.errors import SourceError
from features.event_time import TimeRules
from features.sources.amounts import number
from features.sources.columns import parse_columns

MOMENT = datetime(2026, 9, 21, 14, 20, tzinfo=UTC)
MS = int(MOMENT.timestamp() * 1000)


def _events(path: Path, ts: pa.Array, **columns: pa.Array) -> Path:
    length = len(ts)
    table = {"user": [f"u{n}" for n in range(length)], "item": ["i"] * length, "kind": ["click"] * length, "category": ["c"] * length}
    pq.write_table(pa.table(table | {"ts": ts} | columns), path)
    return path


TIMES = {
    "s": pa.array([MS // 1000]),
    "s in 32 bits": pa.array([MS // 1000], pa.int32()),
    "s in 32 bits, unsigned": pa.array([MS // 1000], pa.uint32()),
    "ms": pa.array([MS], pa.uint64()),
    "us": pa.array([MS * 1000]),
    "ns": pa.array([MS * 10**6]),
    "float": pa.array([MS / 1000]),
    "float us": pa.array([MS * 1e3]),
    "text s": pa.array([str(MS // 1000)]),
    "text float": pa.array([f" {MS // 1000}.000 "]),
    "decimal": pa.array([Decimal(MS // 1000)]),
    "iso": pa.array(["2026-09-21T14:20:00Z"], pa.large_string()),
    "iso zone": pa.array(["2026-09-21T16:20:00.000+02:00"]),
    "iso zone without colon": pa.array(["2026-09-21 16:20 +0200"]),
    "iso without zone": pa.array(["2026-09-21 14:20"]),
    "iso utc": pa.array(["2026-09-21 14:20:00 UTC"]).dictionary_encode(),
    "iso nanoseconds": pa.array(["2026-09-21 14:20:00.000000999Z"]),
    "bytes": pa.array([b"2026-09-21T14:20:00Z"]),
    "timestamp s": pa.array([MS // 1000], pa.timestamp("s")),
    "timestamp ns zone": pa.array([MS * 10**6], pa.timestamp("ns", "Asia/Tokyo")),
}


@pytest.mark.fault(
    "Times in seconds, milliseconds, microseconds, nanoseconds, floats, ISO text, dates or time stamps of any unit",
    "The unit is detected from the values",
)
def test_one_moment_in_every_type_and_unit(tmp_path: Path) -> None:
    for name, ts in TIMES.items():
        [event] = sources.read(_events(tmp_path / "e.parquet", ts))
        assert event.ts == MS, name
    midnight = MS - MS % 86_400_000
    for ts in (pa.array([date(2026, 9, 21)]), pa.array([date(2026, 9, 21)], pa.date64()), pa.array([20260921]), pa.array(["2026-09-21"])):
        [event] = sources.read(_events(tmp_path / "e.parquet", ts))
        assert event.ts == midnight, ts.type


@pytest.mark.parametrize(
    ("ts", "sentence"),
    [
        (pa.array([MS / 1000], pa.float32()), "column ts holds times as float, which has too few digits"),
        (pa.array([[MS]]), "column ts holds list"),
        (pa.array([True]), "column ts holds bool"),
        (
            pa.array([MS, MS // 1000]),
            r"column ts mixes units of time: milliseconds \(1 rows, first row 1\) and seconds \(1 rows, first row 2\)",
        ),
        (pa.array([str(MS), "2026-09-21"]), "column ts mixes units of time: milliseconds .* ISO 8601"),
    ],
)
@pytest.mark.fault("Times in float32 or in mixed units", "The file is refused with an error that names the column")
def test_times_that_would_be_wrong_refuse_the_file(tmp_path: Path, ts: pa.Array, sentence: str) -> None:
    with pytest.raises(SourceError, match=sentence):
        sources.Reading(_events(tmp_path / "e.parquet", ts))


def test_times_that_are_none_refuse_their_rows(tmp_path: Path) -> None:
    for ts, reason in (
        (pa.array([MS, None, 5, -MS]), {"missing_time": 1, "implausible_time": 2}),
        (pa.array([MS / 1000, float("nan"), float("inf"), 1e300]), {"missing_time": 1, "implausible_time": 2}),
        (pa.array(["2026-09-21", "2026-13-01", "9/21/2026 8:26", "None"]), {"missing_time": 1, "bad_time": 2}),
        (pa.array([MS, 1000, None, 2**60], pa.timestamp("ms")), {"missing_time": 1, "implausible_time": 2}),
        (pa.array([20260921, 20260230, 20261301, None]), {"missing_time": 1, "implausible_time": 2}),
    ):
        reading = sources.Reading(_events(tmp_path / "e.parquet", ts))
        assert (reading.refusals.counts, reading.count) == (reason, 1), ts
        assert "column ts" in reading.refusals.first[0].detail


def test_a_refused_row_shows_its_own_value(tmp_path: Path) -> None:
    values = ["4102444800", "soon", "2026-09-21", "-5", "0", "later"]
    first = sources.Reading(_events(tmp_path / "e.parquet", pa.array(values))).refusals.first
    assert [row for row, _, _ in first] == [1, 2, 4, 5, 6]
    for row, _, detail in first:
        assert f"'{values[row - 1]}'" in detail


@pytest.mark.fault("A file with events in the future or beyond the retention", "Training omits the same rows as the workers")
def test_offline_reading_has_the_rules_of_the_workers(tmp_path: Path) -> None:
    rules = TimeRules(max_future_ms=1000, retention_ms=10_000)
    ts = pa.array([MS - 10_001, MS - 10_000, MS + 1000, MS + 1001])
    reading = sources.Reading(_events(tmp_path / "e.parquet", ts), sources.How(now_ms=MS, rules=rules))
    assert [event.ts - MS for event in reading.events()] == [-10_000, 1000]
    assert reading.refusals.counts == {"future": 1, "beyond_retention": 1}
    kept = sources.Reading(_events(tmp_path / "e.parquet", pa.array([MS, MS // 1000])), sources.How(unit=sources.Unit.MILLISECONDS))
    assert (kept.count, kept.refusals.counts) == (1, {"implausible_time": 1})


@pytest.mark.fault(
    "NaN, null, None, undefined or (not set) as user, item or category",
    "The value is treated as missing: without a user or item the row is refused, without a category it is `unknown`",
)
def test_missing_ids_are_missing(tmp_path: Path) -> None:
    words = ["u", " ", "NaN", "nan", "None", "NULL", "undefined", "(not set)", "N/A", None]
    ts = pa.array([MS + n for n in range(len(words))])
    for role, reason in (("user", "missing_user"), ("item", "missing_item")):
        reading = sources.Reading(_events(tmp_path / "e.parquet", ts, **{role: pa.array(words)}))
        assert (reading.count, reading.refusals.counts) == (1, {reason: len(words) - 1})
    categories = [event.category_id for event in sources.read(_events(tmp_path / "e.parquet", ts, category=pa.array(words)))]
    assert categories == ["u", *["unknown"] * (len(words) - 1)]
    numbers = pa.array([7.0, float("nan"), None, float("inf"), 0.0, -1.0, 1234567890123456.0, 2.5, 8.0, 9.0])
    users = [event.user_id for event in sources.Reading(_events(tmp_path / "e.parquet", ts, user=numbers)).events()]
    assert users == ["7", "0", "-1", "1234567890123456", "2.5", "8", "9"]


def test_an_id_is_the_same_text_in_every_type(tmp_path: Path) -> None:
    for column in (
        pa.array([101]), pa.array([101], pa.uint8()), pa.array([101.0]), pa.array([101.0], pa.float32()), pa.array(["101"]),
        pa.array(["101.0"]), pa.array([" 101 "], pa.large_string()), pa.array([b"101"]), pa.array([Decimal("101.00")]),
        pa.array(["101"]).dictionary_encode(),
    ):  # fmt: skip
        [event] = sources.read(_events(tmp_path / "e.parquet", pa.array([MS]), item=column, category=column))
        assert (event.item_id, event.category_id) == ("101", "101"), column.type
    [event] = sources.read(_events(tmp_path / "e.parquet", pa.array([MS]), item=pa.array(["0101"])))
    assert event.item_id == "0101"


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        (pa.array([16777217.0], pa.float32()), "column user holds 16777216 as float, which is exact only below 16,777,216"),
        (pa.array([2.0**60]), "exact only below 9,007,199,254,740,992"),
        (pa.array([["a"]]), "column user holds lists or objects"),
        (pa.array([{"a": 1}]), "column user holds lists or objects"),
        (pa.array(["2.05E+18"]), "column user holds 2.05E+18, an id whose last digits"),
    ],
)
@pytest.mark.fault(
    "Ids that have lost digits: float32, or a spreadsheet's 2.05E+18", "The file is refused with an error that names the column"
)
def test_ids_that_would_be_mixed_up_refuse_the_file(tmp_path: Path, column: pa.Array, sentence: str) -> None:
    with pytest.raises(SourceError, match=re.escape(sentence)):
        sources.Reading(_events(tmp_path / "e.parquet", pa.array([MS]), user=column))


def test_ids_that_no_event_can_carry_refuse_their_rows(tmp_path: Path) -> None:
    users = pa.array([b"ok", b"x" * 129, b"a\x00b", b"\xff", "é".encode() * 128])
    reading = sources.Reading(_events(tmp_path / "e.parquet", pa.array([MS] * 5), user=users))
    assert sorted(event.user_id for event in reading.events()) == ["ok", "é" * 128]
    assert reading.refusals.counts == {"long_id": 1, "control_character": 1, "not_utf8": 1}


def test_orders_carry_quantities_prices_and_their_number(tmp_path: Path) -> None:
    rows = {
        "kind": pa.array(["order"] * 5),
        "user": pa.array(["u"] * 5),
        "order_id": pa.array(["o1", "o1", "o2", "o2", None]),
        "quantity": pa.array(["2", "0", "1.0", None, "-1"]),
        "price": pa.array(["$1,299.00", "1", "1.299,50 €", "—", "3"]),
    }
    reading = sources.Reading(_events(tmp_path / "e.parquet", pa.array([MS] * 5), **rows))
    first, second = reading.events()
    assert [(line.quantity, line.price) for line in first.lines] == [(2, 1299.0)]
    assert (first.order_id, second.order_id) == ("o1", "o2")
    assert sorted(line.price for line in second.lines) == [0.0, 1299.5]
    assert reading.refusals.counts == {"bad_quantity": 2}
    assert reading.notes == ["prices that are unreadable or negative count as absent: 1"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("59.90", 59.9), ("1,299", 1299), ("12,50", 12.5), ("1.299.000", 1299000), ("EUR 5", 5), ("-7.94", -7.94), ("1 299,00", 1299),
     ("—", None),
     ("n/a", None), ("3 for 2", None)],
)  # fmt: skip
def test_prices_as_people_write_them(text: str, value: float | None) -> None:
    assert np.isnan(number(text)) if value is None else number(text) == value


@pytest.mark.parametrize("type_", [pa.float32(), pa.float64()])
def test_one_price_out_of_range_is_absent_and_large_ones_are_no_ids(tmp_path: Path, type_: pa.DataType) -> None:
    """A price of 25,000,000 in 32 bits is no id that was rounded."""
    prices = pa.array([25_000_000.0, 3.4e38, float("nan"), None], type_)
    path = _events(tmp_path / "e.parquet", pa.array([MS + n for n in range(4)]), kind=pa.array(["order"] * 4), price=prices)
    assert [event.lines[0].price for event in sources.read(path)] == [25_000_000.0, 0, 0, 0]


@pytest.mark.parametrize("given", ["user", "user=", "=a", "who=a", "user=a,moon=b"])
def test_wrong_choices_of_columns_are_named(given: str) -> None:
    with pytest.raises(SourceError, match="write ROLE=COLUMN"):
        parse_columns(given)
    with pytest.raises(SourceError, match="time is chosen twice"):
        parse_columns("time=a,user=b,ts=c")
    assert parse_columns("user=a b, ts=c") == {"user": "a b", "time": "c"}

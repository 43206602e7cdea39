"""Files of events: every format, the independence of row order, and what is refused."""

import gc
import gzip
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features import sources
from features.errors import SourceError
from features.events import Click, Event, Item, Order, OrderLine, Query
from tests.beside import data_file

T0 = 1_600_000_000_000
COLUMNS = ("ts", "user", "kind", "item", "category", "text")
ROWS = [
    (T0 + 1000, 7, "click", 5, 50, None),
    (T0 + 1000, 7, "click", 5, 50, None),
    (T0 + 2000, 7, "search", None, None, "red shoes"),
    (T0 + 2000, 7, "order", 6, 50, None),
    (T0 + 2000, 7, "order", 5, None, None),
    (T0 + 2000, 7, "order", 5, None, None),
    (T0 + 2000, 8, "order", 6, 50, None),
    (T0 + 7_300_000, 7, "fav", 9, 51, "a title"),
    (T0 + 7_300_000, 7, "cart", 9, 51, None),
]


def _parquet(path: Path, rows: list[tuple]) -> Path:
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True)) if rows else {name: [] for name in COLUMNS}
    table = pa.table({name: pa.array(column) for name, column in columns.items()})
    ts = table["ts"].cast(pa.int64()).cast(pa.timestamp("ms"))
    pq.write_table(table.set_column(0, "ts", ts), path)
    return path


def _csv(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(lines))
    return path


def test_rows_become_events_and_a_basket_one_order(tmp_path: Path) -> None:
    events = list(sources.read(_parquet(tmp_path / "e.parquet", ROWS)))
    assert [type(event) for event in events] == [Click, Click, Query, Order, Order, Click, Click]
    assert events[0].event_id != events[1].event_id
    basket, other = [event for event in events if isinstance(event, Order)]
    assert basket.user_id == "7"
    assert basket.lines == [OrderLine(item_id="5", category_id="unknown")] * 2 + [OrderLine(item_id="6", category_id="50")]
    assert other.lines == [OrderLine(item_id="6", category_id="50")]
    assert [event.kind for event in events if isinstance(event, Click)] == ["click", "click", "cart", "favourite"]
    assert next(event.text for event in events if isinstance(event, Query)) == "red shoes"
    assert sources.Reading(tmp_path / "e.parquet").count == len(events) == len({event.event_id for event in events})


@pytest.mark.parametrize("chunk_rows", [1, 4, 1000])
def test_neither_the_order_of_rows_nor_chunks_change_anything(tmp_path: Path, chunk_rows: int) -> None:
    expected = list(sources.read(_parquet(tmp_path / "a.parquet", ROWS)))
    for seed in range(5):
        shuffled = random.Random(seed).sample(ROWS, len(ROWS))
        reading = sources.Reading(_parquet(tmp_path / "b.parquet", shuffled), chunk_rows=chunk_rows)
        assert [list(reading.events()), list(reading.events())] == [expected, expected]
        assert reading.count == len(expected)


def test_a_read_that_is_broken_off_leaves_no_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _parquet(tmp_path / "e.parquet", ROWS)
    (tmp_path / "spool").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spool"))
    with sources.Reading(path, chunk_rows=4) as reading:
        next(reading.events())
        assert list((tmp_path / "spool").iterdir())
    assert not list((tmp_path / "spool").iterdir())
    events = sources.Reading(path, chunk_rows=4).events()
    next(events)
    del events
    gc.collect()
    assert not list((tmp_path / "spool").iterdir())


def test_bad_rows_are_reported_with_their_position_and_good_ones_kept(tmp_path: Path) -> None:
    bad = [
        (None, 7, "click", 5, 50, None),
        (T0 + 1000, None, "click", 5, 50, None),
        (T0 + 1000, 7, "teleport", 5, 50, None),
        (T0 + 1000, 7, None, 5, 50, None),
        (T0 + 1000, 7, "click", None, 50, None),
        (T0 + 1000, 7, "search", None, None, None),
        (-5, 7, "click", 5, 50, None),
    ]
    path = _parquet(tmp_path / "bad.parquet", ROWS[:1] + bad + ROWS[1:])
    reading = sources.Reading(path, chunk_rows=2)
    assert list(reading.events()) == list(sources.read(_parquet(tmp_path / "good.parquet", ROWS)))
    assert [(refused.row, str(refused.reason)) for refused in reading.refusals.first] == [
        (2, "missing_time"), (3, "missing_user"), (4, "unknown_kind"), (5, "unknown_kind"), (6, "missing_item"), (7, "missing_text"),
        (8, "implausible_time"),
    ]  # fmt: skip
    assert reading.refusals.kinds == {"teleport": 1, "(missing)": 1}
    assert (reading.rows, reading.good, reading.refused_share) == (16, 9, 7 / 16)
    with pytest.raises(SourceError, match=r"bad\.parquet, row 2: column ts has no time"):
        sources.read(path)


def test_large_baskets_are_cut_to_what_an_order_may_hold(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "big.parquet", [(T0 + 1000, 1, "order", 3, 4, None)] * 1001)
    orders = list(sources.read(path))
    assert [len(order.lines) for order in orders if isinstance(order, Order)] == [500, 500, 1]
    assert len({order.event_id for order in orders if isinstance(order, Order)}) == 3


TAOBAO = [
    b"1,2268318,2520377,pv,1511544070\n",
    b"1,2268318,2520377,buy,1511544071\n",
    b"2,99,2520377,cart,1511544070\n",
    b"2,98,7,fav,1511544072",
]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_taobao_as_published(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"UserBehavior{suffix}"
    path.write_bytes(gzip.compress(b"".join(TAOBAO)) if suffix.endswith("gz") else b"".join(TAOBAO))
    events = list(sources.read(path))
    assert [(event.ts, event.user_id) for event in events if not isinstance(event, Item)] == [
        (1511544070000, "1"), (1511544070000, "2"), (1511544071000, "1"), (1511544072000, "2"),
    ]  # fmt: skip
    assert [event.kind for event in events if isinstance(event, Click)] == ["click", "cart", "favourite"]
    assert sources.items_of(events) == [
        Item(item_id="2268318", category_id="2520377", title="", ts=1511544070000, inferred=True),
        Item(item_id="98", category_id="7", title="", ts=1511544072000, inferred=True),
        Item(item_id="99", category_id="2520377", title="", ts=1511544070000, inferred=True),
    ]
    assert sources.Reading(path).touched() == sources.items_of(events)


@pytest.mark.parametrize(
    "line", [b"1,2,3", b"1,2,3,pv,soon", b"1,2,3,pv,", b"1,2,3,gaze,1511544070", b",2,3,pv,1", b"1,\xff,3,pv,1", b"1,2,3,pv,1,9"]
)
def test_a_bad_line_of_a_csv_costs_only_itself(tmp_path: Path, line: bytes) -> None:
    good = list(sources.read(_csv(tmp_path / "good.csv", TAOBAO)))
    reading = sources.Reading(_csv(tmp_path / "bad.csv", [*TAOBAO[:2], line + b"\n", *TAOBAO[2:]]))
    assert list(reading.events()) == good
    assert [refused.row for refused in reading.refusals.first] == [3]


def test_blocks_of_a_csv_do_not_cut_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(sources.read(_csv(tmp_path / "a.csv", TAOBAO)))
    for size in (1, 7, 40, 64):
        monkeypatch.setattr("features.sources.delimited.BLOCK_BYTES", size)
        assert list(sources.read(tmp_path / "a.csv")) == expected


def _own() -> list[Event]:
    return [
        Item(item_id="i", category_id="c", title="t", ts=5),
        Query(event_id="q", user_id="u", query_id="q", text="shoe", ts=5),
        Click(event_id="a", user_id="u", item_id="i", category_id="c", ts=5),
        Order(event_id="o", order_id="o", user_id="u", ts=5, lines=[OrderLine(item_id="j", category_id="d")]),
    ]


def test_json_lines_round_trip_in_any_order(tmp_path: Path) -> None:
    for seed in range(4):
        path = tmp_path / "own.jsonl"
        assert sources.write(path, random.Random(seed).sample(_own(), 4)) == 4
        assert list(sources.read(path)) == _own()
    assert [item.item_id for item in sources.Reading(path).touched()] == ["j"]


def test_json_lines_that_are_no_event_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    click = b'{"topic":"clicks","event_id":"a","user_id":"u","item_id":"i","category_id":"c","ts":5,"text":"extra"}'
    path.write_bytes(b"\n".join([click, b"", b"{", b'{"topic":"moon"}', b"[]", b'{"user_id":"u"}', b'"\xff"', click]))
    reading = sources.Reading(path)
    assert [event.ts for event in reading.events()] == [5, 5]
    assert [(refused.row, str(refused.reason)) for refused in reading.refusals.first] == [
        (3, "bad_json"), (4, "wrong_shape"), (5, "wrong_shape"), (6, "wrong_shape"), (7, "not_utf8"),
    ]  # fmt: skip


@pytest.mark.data
@pytest.mark.parametrize(("name", "events"), [("taobao_users", 101_489), ("bestbuy_search_clicks", 66_144)])
def test_real_files_shuffled_give_the_same_events(tmp_path: Path, name: str, events: int) -> None:
    table = pq.read_table(data_file(f"{name}.parquet"))
    order = list(range(len(table)))
    random.Random(1).shuffle(order)
    pq.write_table(table.take(order), tmp_path / "shuffled.parquet")
    found = list(sources.read(data_file(f"{name}.parquet")))
    assert len(found) == events == len({event.event_id for event in found})  # type: ignore[union-attr]
    assert list(sources.Reading(tmp_path / "shuffled.parquet", chunk_rows=len(table) // 3).events()) == found


@pytest.mark.data
def test_products_describe_items_that_orders_touch() -> None:
    products = sources.Products(data_file("complete_journey_products.parquet"))
    reading = sources.Reading(data_file("complete_journey_orders.parquet"), products=products)
    known = {item.item_id: item for item in reading.described()}
    assert (len(known), reading.count) == (92_331, 125_096)
    assert known["25671"].title == "ICE - CRUSHED/CUBED 22 LB"
    assert known["25671"].attributes["brand"] == "National"
    assert not {item.item_id for item in reading.undescribed()} & known.keys()

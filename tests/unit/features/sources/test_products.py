"""Tables of products: what they say of items, in every format, and how they fit the events."""

import csv
import json
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features import sources
from features.availability import is_available
from features.errors import SourceError
from features.event_time import TimeRules
from features.events import Event, Item, Topic, decode, encode

TS = 1_700_000_000_000
ROWS = [
    {"product_id": "1", "name": "Trail shoe", "category": 7, "price": 129.0, "brand": "fleet", "in_stock": True, "weight_g": 310},
    {"product_id": "2", "name": "Lamp, tall", "category": 0, "price": None, "brand": None, "in_stock": False, "weight_g": None},
    {"product_id": "3", "name": "x" * 600, "category": None, "price": -1.0, "brand": "nan", "in_stock": None, "weight_g": 20},
]


def _events(path: Path, items: list, categories: list | None = None) -> Path:
    columns = {"user": ["u"] * len(items), "item": items, "ts": [TS + n for n in range(len(items))]}
    pq.write_table(pa.table(columns | ({} if categories is None else {"category": categories})), path)
    return path


def _csv(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _written(folder: Path, rows: list[dict]) -> list[Path]:
    pq.write_table(pa.Table.from_pylist(rows), folder / "p.parquet")
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "p.json").write_text(json.dumps(rows))
    return [folder / "p.parquet", folder / "p.jsonl", folder / "p.json", _csv(folder / "p.csv", rows)]


@pytest.mark.fault("A product table with title, price, stock and other columns, in any format", "Every column becomes part of the items")
def test_every_column_is_used_in_every_format(tmp_path: Path) -> None:
    events = _events(tmp_path / "e.parquet", [1, 2, 9], [7, 0, 5])
    for path in _written(tmp_path, ROWS):
        reading = sources.Reading(events, products=sources.Products(path))
        shoe, lamp, long = reading.described()
        assert (shoe.item_id, shoe.title, shoe.category_id, shoe.price, shoe.ts) == ("1", "Trail shoe", "7", 129.0, TS), path
        assert {name: value.lower() for name, value in shoe.attributes.items()} == {
            "brand": "fleet",
            "available": "true",
            "weight_g": "310",
        }
        assert (lamp.title, lamp.category_id, lamp.price) == ("Lamp, tall", "0", 0.0)
        assert [is_available(item) for item in (shoe, lamp, long)] == [True, False, True]
        assert (len(long.title), long.category_id, long.price, long.attributes) == (512, "unknown", 0.0, {"weight_g": "20"})
        assert [item.item_id for item in reading.undescribed()] == ["9"]
        assert reading.products is not None
        assert reading.products.bad_prices == 1
        for item in (shoe, lamp, long):
            assert not decode(Topic.ITEMS, [encode(item)], TS, TimeRules()).bad


def test_events_without_a_category_get_that_of_the_product(tmp_path: Path) -> None:
    products = sources.Products(_csv(tmp_path / "p.csv", [{"sku": "1", "product_category": "shoes"}, {"sku": "2", "product_category": ""}]))
    events: list[Event] = list(sources.Reading(_events(tmp_path / "e.parquet", [1, 2, 3]), products=products).events())
    assert [event.category_id for event in events] == ["shoes", "unknown", "unknown"]  # type: ignore[union-attr]
    reading = sources.Reading(_events(tmp_path / "e.parquet", [1, 2], ["a", "b"]), products=products)
    assert [event.category_id for event in reading.events()] == ["a", "b"]  # type: ignore[union-attr]
    assert [item.category_id for item in reading.described()] == ["shoes", "b"]


@pytest.mark.fault(
    "A product table that matches no item of the events", "The command stops with an error that says so and points out lost leading zeros"
)
def test_a_table_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    padded = sources.Products(_csv(tmp_path / "p.csv", [{"product_id": "0101", "title": "a"}, {"product_id": "0102", "title": "b"}]))
    with pytest.raises(
        SourceError, match=r"describes none of the 2 items .*101, 102; in the table 0101, 0102\); 2 match without leading zeros"
    ):
        sources.Reading(_events(tmp_path / "e.parquet", [101, 102]), products=padded)
    with pytest.raises(SourceError, match="is the right column the id"):
        sources.Reading(_events(tmp_path / "e.parquet", ["x", "y"]), products=padded)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [{"label": "a", "colour": "b"}],
            r"no column for item; its columns are label, colour: choose them, as in --product-columns item=COLUMN",
        ),
        ([{"itemid": "1", "property": "790", "value": "n1"}], "a row for each property"),
        ([{"item_id": "1", "product_id": "2"}], r"several columns for item \(item_id, product_id\)"),
    ],
)
def test_tables_that_cannot_be_understood_are_named(tmp_path: Path, rows: list[dict], sentence: str) -> None:
    with pytest.raises(SourceError, match=sentence):
        sources.Products(_csv(tmp_path / "p.csv", rows))


def test_bad_rows_of_products_are_refused_and_duplicates_do_not_depend_on_order(tmp_path: Path) -> None:
    rows = [{"product_id": name, "title": title} for name, title in (("1", "a"), ("1", "b"), ("", "c"), ("x" * 129, "d"), ("NULL", "e"))]
    found = []
    for given in (rows, rows[::-1]):
        products = sources.Products(_csv(tmp_path / "p.csv", given))
        found.append((list(products.items(TS, {})), products.refusals.counts, products.rows, products.notes))
    assert found[0] == found[1]
    assert [item.title for item in found[0][0]] == ["b"]
    assert found[0][1:3] == ({"missing_item": 2, "long_id": 1}, 5)


def test_embeddings_and_many_columns_are_bounded(tmp_path: Path) -> None:
    row = {"id": 1, "image_embedding": [0.5, 1.0], "text_embedding": [1.0] * 5000, "images": [{"u": 1}]} | {
        f"c{n}": "v" * 300 for n in range(40)
    }
    for path in _written(tmp_path, [row])[:2]:
        products = sources.Products(path)
        [item] = products.items(TS, {})
        assert (item.image_embedding, item.text_embedding) == ([0.5, 1.0], None)
        assert (len(item.attributes), {len(value) for value in item.attributes.values()}) == (32, {256})
        assert "images" in products.ignored
        assert "c39" in products.ignored


def test_item_events_of_ours_are_a_table_of_products(tmp_path: Path) -> None:
    mine = Item(item_id="1", category_id="c", title="t", ts=5, attributes={"brand": "b"}, price=2.0, image_embedding=[1.0])
    sources.write(tmp_path / "items.jsonl", [mine])
    assert list(sources.Products(tmp_path / "items.jsonl").items(TS, {})) == [msgspec.structs.replace(mine, ts=TS)]

"""The one table of features: complete, unambiguous, and what unpacking gives is what it declares."""

import ast
from struct import pack as pack_struct

import pytest

from features import table
from features.codec import pack
from features.errors import LayoutError
from features.event_time import DAY_MS
from features.events import Click, Item, Order, OrderLine, Query
from features.feast.unpacking import columns, fields
from features.fold import Bucket
from features.outcomes import Candidate, CandidatesRow, InterestsRow, ItemRow
from features.rows import Behaviour, CategoryRow, Pair, Search, Touched, UserRow
from tests.beside import ROOT

TYPES = {"int64": int, "float32": float, "string": str}
EVENT = Behaviour(5, 1, "i", "c", 3, 0, Pair(False, 4, 2, "red shoe"))
BARE = Behaviour(6, 3, "j", "c", 0)
ROWS = {
    "user": UserRow(1, [EVENT, BARE], [Search(4, 2, 0, "red shoe")], [Touched(6, "c", 2)], [EVENT]),
    "user_category": CategoryRow(1, [EVENT, BARE], [Bucket(0, DAY_MS, 1, 2, 3, 4, 9)]),
    "user_interests": InterestsRow(1, ["c", ""], pack_struct("<4f", 1, 2, 3, 0.5), 2, "g"),
    "user_candidates": CandidatesRow(1, [Candidate("i", 1.5, "c", "short"), Candidate("j", 1, "c", "popular")], "full", "g", 5, 6),
    "item": ItemRow(1, "c", "Red shoe", 3, pack_struct("<2f", 1, 0.5), bytes([7, 255]), "g", 5, True),
}


def test_names_are_unique_across_views() -> None:
    names = [field.name for view in table.VIEWS for field in view.fields]
    names += [view.name for view in table.VIEWS] + sorted({entity for view in table.VIEWS for entity in view.entities})
    clashes = {name for name in names if names.count(name) > 1}
    assert clashes <= {"item"}, "Feast clients get fields of several views in one table, by their short names"


def test_every_field_is_described() -> None:
    for view in table.VIEWS:
        assert view.description.endswith(".")
        for field in view.fields:
            assert field.type in TYPES
            assert field.length >= 0
            assert field.description


def test_the_schema_hash_follows_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    before = table.schema_hash()
    assert before == table.schema_hash()
    assert len(before) == 16
    changed = table.ITEM._replace(fields=(table.ITEM.fields[0]._replace(length=3), *table.ITEM.fields[1:]))
    monkeypatch.setattr(table, "VIEWS", (*table.VIEWS[:4], changed))
    assert table.schema_hash() != before


@pytest.mark.parametrize("view", table.VIEWS, ids=lambda view: view.name)
@pytest.mark.parametrize("empty", [True, False])
def test_unpacking_gives_the_declared_types(view: table.RowView, empty: bool) -> None:
    unpacked = fields(view.name, None if empty else pack(ROWS[view.name]))
    assert list(unpacked) == [field.name for field in view.fields]
    for field in view.fields:
        value = unpacked[field.name]
        assert type(value) is (list if field.length else TYPES[field.type]), field.name
        if isinstance(value, list):
            assert bool(value) is not empty, field.name
            assert {type(element) for element in value} <= {TYPES[field.type]}, field.name
            assert len(value) <= field.length
        else:
            assert bool(value) is not empty, field.name


def test_values_of_the_unpacked_rows() -> None:
    assert fields("user_category", pack(ROWS["user_category"])) == {
        "ts": [5, 6], "item": ["i", "j"], "kind": ["order", "click"], "query": ["red shoe", ""],
        "folded_start_ts": [0], "folded_width": [DAY_MS], "folded_count": [10], "count": 12,
    }  # fmt: skip
    assert fields("user_interests", pack(ROWS["user_interests"]))["interest_vector"] == [1, 2, 3, 0.5]
    assert fields("item", pack(ROWS["item"]))["item_code"] == [7, 255]


def test_columns_are_a_list_a_field_with_a_value_a_row() -> None:
    found = columns("user_interests", [pack(ROWS["user_interests"]), None])
    assert (found["interest_dim"], found["interest_category"]) == ([2, 0], [["c", ""], []])
    assert columns("user_interests", [])["interest_dim"] == []


def test_what_is_no_row_of_the_view_is_refused() -> None:
    with pytest.raises(LayoutError):
        fields("item", pack(ROWS["user"]))
    with pytest.raises(KeyError):
        fields("nothing", None)


def test_a_feature_is_named_in_the_table_only() -> None:
    events = {name for event in (Click, Query, Order, OrderLine, Item) for name in event.__struct_fields__}
    names = {field.name for view in table.VIEWS for field in view.fields if "_" in field.name} - events
    elsewhere = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.value}"
        for package in ("features", "models", "stream", "infra", "research")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "table.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert elsewhere == []


def test_the_schema_hash_covers_what_a_model_reads_and_no_description(monkeypatch: pytest.MonkeyPatch) -> None:
    before = table.schema_hash()
    described = [
        view._replace(description="x", fields=tuple(field._replace(description="x") for field in view.fields)) for view in table.VIEWS
    ]
    monkeypatch.setattr(table, "VIEWS", tuple(described))
    assert table.schema_hash() == before
    for changed in ({"name": "x"}, {"type": "x"}, {"length": 7}, {"unit": "x"}):
        for view in table.VIEWS:
            other = view._replace(fields=(view.fields[0]._replace(**changed), *view.fields[1:]))
            monkeypatch.setattr(table, "VIEWS", tuple(other if one.name == view.name else one for one in described))
            assert (table.schema_hash() == before) == (view.written_by == "refresh")
        monkeypatch.setattr(table, "VIEWS", tuple(described))

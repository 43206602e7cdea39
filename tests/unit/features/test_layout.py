"""The layout of the store is Feast's: each function gives the bytes that Feast's own classes give."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from features.errors import LayoutError
from features.store import MOST_EPOCH, LogPosition, layout
from features.table import APPLIED, PACKED, VIEWS

text = st.text(st.characters(exclude_categories=["Cs"]))
millisecond = st.integers(0, 2**52)


@given(view=st.sampled_from(VIEWS), values=st.lists(text, min_size=2, max_size=2))
def test_entity_keys(view, values) -> None:
    entities = tuple(values[: len(view.entities)])
    proto = EntityKey(join_keys=view.entities, entity_values=[Value(string_val=value) for value in entities])
    assert layout.entity_key(view.name, entities) == serialize_entity_key(proto, entity_key_serialization_version=3)
    assert layout.entity_key(view.name, entities) + b"shop" == _redis_key("shop", proto, 3)


def test_hash_fields() -> None:
    for view in VIEWS:
        names = [f"{view.name}:{layout.stored_name(view.name, part)}" for part in (APPLIED, PACKED)]
        assert layout.HASH_FIELDS[view.name] == (*map(_mmh3, names), f"_ts:{view.name}".encode())


@given(st.one_of(st.binary(), st.binary(min_size=120, max_size=140), st.integers(16_380, 16_390).map(bytes)))
def test_bytes_values(payload: bytes) -> None:
    assert layout.bytes_value(payload) == Value(bytes_val=payload).SerializeToString()
    assert layout.payload(layout.bytes_value(payload)) == payload


@given(text)
def test_string_values(value: str) -> None:
    assert layout.string_value(value) == Value(string_val=value).SerializeToString()
    assert layout.payload(layout.string_value(value)).decode() == value


@given(st.binary(max_size=20))
def test_what_is_no_value_is_a_layout_error(data: bytes) -> None:
    with suppress(LayoutError):
        assert data[1:].endswith(layout.payload(data))


@pytest.mark.parametrize("value", [b"", b"\x0a", b"\x0a\x05abc", b"\x0a\xff", Value(int64_val=3).SerializeToString()])
def test_cut_and_foreign_values_are_layout_errors(value: bytes) -> None:
    with pytest.raises(LayoutError):
        layout.payload(value)


@given(millisecond.filter(lambda ms: ms < 250_000_000_000_000))
def test_time_stamps(ts_ms: int) -> None:
    stamp = Timestamp()
    stamp.FromDatetime(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ts_ms))
    assert layout.timestamp(ts_ms) == stamp.SerializeToString()


@given(millisecond)
def test_time_stamps_come_back(ts_ms: int) -> None:
    assert layout.milliseconds(layout.timestamp(ts_ms)) == ts_ms


def test_no_time_stamp_is_0() -> None:
    assert layout.milliseconds(None) == layout.milliseconds(b"") == 0


@given(st.builds(LogPosition, st.integers(0, MOST_EPOCH), *[st.integers(0, 2**63 - 1)] * 3))
def test_versions_come_back(position: LogPosition) -> None:
    assert layout.position_of(layout.position_value(position)) == position
    assert layout.position_value(position) == Value(string_val=layout.position_text(position)).SerializeToString()


@pytest.mark.parametrize("text", ["", "v:1:2:3", "v:1:2:3:4:5", "v:-1:2:3:4", "1:2:3:4", "v:1:2:3:x", f"v:{MOST_EPOCH + 1}:2:3:4"])
def test_a_foreign_version_is_the_oldest(text: str) -> None:
    assert layout.position_of(layout.string_value(text)) == layout.position_of(None) == LogPosition()

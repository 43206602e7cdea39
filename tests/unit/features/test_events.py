"""Any bytes give an event or a dead letter with its reason, never an exception."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.event_time import TimeRules
from features.events import MAX_EVENT_BYTES, TYPES, Click, Order, Reason, Topic, decode, encode, key_of

NOW = 1_700_000_000_000
CLICK = {"event_id": "e", "user_id": "u", "item_id": "i", "category_id": "c", "ts": NOW}
LINE = {"item_id": "i", "category_id": "c", "quantity": 1, "price": 2.5}
GOOD = {
    Topic.CLICKS: CLICK,
    Topic.QUERIES: {"event_id": "e", "user_id": "u", "query_id": "q", "text": "Red shoes", "ts": NOW},
    Topic.ORDERS: {"event_id": "e", "order_id": "o", "user_id": "u", "ts": NOW, "lines": [LINE]},
    Topic.ITEMS: {"item_id": "i", "category_id": "c", "title": "A shoe", "attributes": {"colour": "red"}, "price": 9.5, "ts": NOW},
}


def reasons(topic, *payloads):
    decoded = decode(topic, payloads, NOW, TimeRules())
    assert sorted([p for p, _ in decoded.good] + [b.position for b in decoded.bad]) == list(range(len(payloads)))
    return [bad.reason for bad in decoded.bad]


@pytest.mark.parametrize("topic", list(Topic))
def test_every_kind_goes_over_the_wire_and_back(topic):
    [(_, event)] = decode(topic, [json.dumps(GOOD[topic]).encode()], NOW, TimeRules()).good
    assert isinstance(event, TYPES[topic])
    assert decode(topic, [encode(event)], NOW, TimeRules()).good == [(0, event)]
    assert key_of(event) == (b"i" if topic is Topic.ITEMS else b"u")


def test_unknown_fields_pass_and_an_optional_version_is_taken():
    [(_, click)] = decode(Topic.CLICKS, [json.dumps(CLICK | {"shop": "de", "v": 1}).encode()], NOW, TimeRules()).good
    assert isinstance(click, Click)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, Reason.EMPTY),
        (b"", Reason.EMPTY),
        (b"x" * (MAX_EVENT_BYTES + 1), Reason.OVERSIZED),
        (b"{", Reason.BAD_JSON),
        (b"\xff\xfe{}", Reason.NOT_UTF8),
        (b'{"x": ' + b"[" * 60_000, Reason.BAD_JSON),
        (b"[]", Reason.WRONG_SHAPE),
        (json.dumps(CLICK | {"ts": "yesterday"}).encode(), Reason.WRONG_SHAPE),
        (json.dumps(CLICK | {"ts": -1}).encode(), Reason.WRONG_SHAPE),
        (json.dumps(CLICK | {"item_id": ""}).encode(), Reason.WRONG_SHAPE),
        (json.dumps(CLICK | {"item_id": 7}).encode(), Reason.WRONG_SHAPE),
        (json.dumps(CLICK | {"kind": "stare"}).encode(), Reason.WRONG_SHAPE),
        (json.dumps({k: v for k, v in CLICK.items() if k != "user_id"}).encode(), Reason.WRONG_SHAPE),
        (json.dumps(CLICK | {"ts": NOW + 3_600_000}).encode(), Reason.FUTURE),
        (json.dumps(CLICK | {"ts": 0}).encode(), Reason.BEYOND_RETENTION),
    ],
)
def test_what_is_wrong_is_named(payload, reason):
    assert reasons(Topic.CLICKS, payload) == [reason]


def test_a_wrong_order_line_spoils_the_order_and_says_where():
    bad = json.dumps(GOOD[Topic.ORDERS] | {"lines": [LINE, LINE | {"quantity": 0}]}).encode()
    [refusal] = decode(Topic.ORDERS, [bad], NOW, TimeRules()).bad
    assert "lines" in refusal.detail
    assert reasons(Topic.ORDERS, json.dumps(GOOD[Topic.ORDERS] | {"lines": []}).encode()) == [Reason.WRONG_SHAPE]
    assert isinstance(decode(Topic.ORDERS, [json.dumps(GOOD[Topic.ORDERS]).encode()], NOW, TimeRules()).good[0][1], Order)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(st.sampled_from(list(Topic)), st.lists(st.none() | st.binary(max_size=200), max_size=5))
def test_any_bytes_are_an_event_or_a_refusal(topic, payloads):
    reasons(topic, *payloads)


@given(st.sampled_from(list(Topic)), st.sampled_from([*CLICK, "lines", "text", "title", "attributes", "price", "image_embedding"]), JSON)
def test_a_good_event_with_one_field_replaced_is_an_event_or_a_refusal(topic, name, value):
    reasons(topic, json.dumps(GOOD[topic] | {name: value}).encode())


@given(st.sampled_from(list(Topic)), st.data())
def test_a_good_event_with_bytes_flipped_is_an_event_or_a_refusal(topic, data):
    payload = bytearray(json.dumps(GOOD[topic]).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    reasons(topic, bytes(payload))


CONTROLS = ["\0", "\t", "\n", "\x1b", "\x7f", "\x80", "\x85", "\x9f"]


@pytest.mark.fault(
    "An id with a control character, as a JSON escape or raw UTF-8",
    "The event becomes a dead letter `control_character` that names the field",
)
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("control", CONTROLS)
def test_control_characters_in_ids_are_refused_and_in_texts_they_pass(control, ascii_only):
    def bad(topic, event):
        [refusal] = decode(topic, [json.dumps(event, ensure_ascii=ascii_only).encode()], NOW, TimeRules()).bad
        assert refusal.reason is Reason.CONTROL_CHARACTER
        return refusal.detail.split()[0]

    for topic, event in GOOD.items():
        for name in [name for name in event if name.endswith("_id")]:
            assert bad(topic, event | {name: f"a{control}b"}) == name
    assert bad(Topic.CLICKS, CLICK | {"session_id": control}) == "session_id"
    assert bad(Topic.ORDERS, GOOD[Topic.ORDERS] | {"lines": [LINE, LINE | {"item_id": control}]}) == "lines[1].item_id"
    for topic, name in ((Topic.QUERIES, "text"), (Topic.ITEMS, "title")):
        assert decode(topic, [json.dumps(GOOD[topic] | {name: f"a{control}b é"}, ensure_ascii=ascii_only).encode()], NOW, TimeRules()).good


def test_what_is_hashed_into_an_identity_cannot_hold_what_parts_it():
    """Parts are joined by U+0000: without this refusal (`a\\0b`, `c`) and (`a`, `b\\0c`) would be one event."""
    events = [CLICK | {"item_id": "a\0b", "category_id": "c"}, CLICK | {"item_id": "a", "category_id": "b\0c"}]
    assert reasons(Topic.CLICKS, *(json.dumps(event).encode() for event in events)) == [Reason.CONTROL_CHARACTER] * 2


@pytest.mark.parametrize("change", [{"position": 2**31}, {"position": -(2**63)}, {"v": 2**40}, {"position": 10**30}])
def test_numbers_out_of_range_are_refused(change):
    assert reasons(Topic.CLICKS, json.dumps(CLICK | change).encode()) == [Reason.WRONG_SHAPE]


@pytest.mark.fault(
    "A price that is negative, above 10^15 or not finite in float32", "The event becomes a dead letter `wrong_shape` that names the field"
)
@pytest.mark.parametrize("price", ["1e308", "3.5e38", "1.1e15", "-1", "1e999", "-1e-300", "null", '"9"'])
def test_prices_fit_float32(price):
    payload = json.dumps(GOOD[Topic.ORDERS]).replace("2.5", price).encode()
    [refusal] = decode(Topic.ORDERS, [payload], NOW, TimeRules()).bad
    assert refusal.reason is Reason.WRONG_SHAPE


def test_infinite_prices_are_refused():
    payload = msgspec.json.encode(GOOD[Topic.ITEMS]).replace(b"9.5", b"1e999")
    assert reasons(Topic.ITEMS, payload) in ([Reason.WRONG_SHAPE], [Reason.BAD_JSON])


@pytest.mark.fault("An item or an order line with a price of 1e308", "The event becomes a dead letter that names the price")
@pytest.mark.parametrize("price", [1e308, 3.5e38, 1.1e15, -0.01])
def test_a_price_that_float32_cannot_keep_is_refused_and_named(price):
    assert decode(Topic.ITEMS, [json.dumps(GOOD[Topic.ITEMS] | {"price": 1e15}).encode()], NOW, TimeRules()).bad == []
    item = json.dumps(GOOD[Topic.ITEMS] | {"price": price}).encode()
    order = json.dumps(GOOD[Topic.ORDERS] | {"lines": [LINE | {"price": price}]}).encode()
    for topic, payload in ((Topic.ITEMS, item), (Topic.ORDERS, order)):
        [refusal] = decode(topic, [payload], NOW, TimeRules()).bad
        assert refusal.reason is Reason.WRONG_SHAPE
        assert "price" in refusal.detail


@pytest.mark.fault(
    "An item with a title over 512 characters, null fields, or attributes that are numbers, booleans or null",
    "The item is kept: the title is truncated, null fields are ignored, and attributes are converted to text",
)
def test_an_item_with_harmless_irregularities_is_kept():
    attributes = {"in_stock": False, "size": 42, "weight": 1.5, "rank": 3.0, "brand": None, "colour": "red"}
    loose = GOOD[Topic.ITEMS] | {"title": "x" * 600, "price": None, "attributes": attributes, "deleted": None, "text_embedding": None}
    [(_, item)] = decode(Topic.ITEMS, [json.dumps(loose).encode()], NOW, TimeRules()).good
    assert (item.title, item.price, item.deleted, item.text_embedding) == ("x" * 512, 0.0, False, None)
    assert item.attributes == {"in_stock": "false", "size": "42", "weight": "1.5", "rank": "3", "colour": "red"}
    assert decode(Topic.ITEMS, [encode(item)], NOW, TimeRules()).good == [(0, item)]
    [(_, gone)] = decode(Topic.ITEMS, [json.dumps({"item_id": "i", "ts": NOW, "deleted": True}).encode()], NOW, TimeRules()).good
    assert (gone.item_id, gone.deleted) == ("i", True)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"price": "12.50"}, "price"),
        ({"category_id": None}, "category_id"),
        ({"title": None}, "title"),
        ({"title": 7}, "title"),
        ({"attributes": {"sizes": [1, 2]}}, "attributes"),
        ({"deleted": "false"}, "deleted"),
        ({"text_embedding": [1.0, None]}, "text_embedding"),
        ({"ts": None}, "ts"),
    ],
)
def test_an_item_that_would_be_wrong_is_refused_and_the_field_named(changed, named):
    [refusal] = decode(Topic.ITEMS, [json.dumps(GOOD[Topic.ITEMS] | changed).encode()], NOW, TimeRules()).bad
    assert refusal.reason is Reason.WRONG_SHAPE
    assert named in refusal.detail


@pytest.mark.fault(
    "An event in the framing of a schema registry, Kafka Connect or Debezium",
    "It becomes a dead letter whose detail names the framing and the remedy",
)
@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"\x00\x00\x00\x00\x07" + json.dumps(GOOD[Topic.CLICKS]).encode(), "schema registry"),
        (json.dumps({"schema": {"type": "struct"}, "payload": GOOD[Topic.CLICKS]}).encode(), "schemas.enable=false"),
        (json.dumps({"payload": {"before": None, "after": GOOD[Topic.CLICKS], "op": "c"}}).encode(), "ExtractNewRecordState"),
    ],
)
def test_the_framing_of_other_producers_is_named(payload: bytes, said: str) -> None:
    [refusal] = decode(Topic.CLICKS, [payload], NOW, TimeRules()).bad
    assert said in refusal.detail

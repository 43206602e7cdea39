"""What is fuzzed: each target takes any bytes and must end as its module promises, never otherwise."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec
import numpy as np
from hypothesis import strategies as st

from features.apply import Applied, apply
from features.codec import pack, unpack
from features.errors import LayoutError
from features.event_time import TimeRules
from features.events import CONTROLS, Click, Order, OrderLine, Query, Topic, decode
from features.feast.unpacking import columns
from features.outcomes import Candidate, CandidatesRow, InterestsRow, ItemRow
from features.rows import CategoryRow, UserRow, behaviours, search
from infra.errors import RequestError
from infra.http import intake
from stream.kafka import messages
from stream.kafka.messages import CodesAnswer, CodesRequest, DeadLetter, DriftReport, RefreshRequest, Skipped
from stream.pipelines.dead_letters import _found as found_letter
from tests.fuzz import handlers, item_handlers
from tests.fuzz.mutations import json_like, rows_like

NOW = 1_700_000_000_000
EVENTS = {
    Topic.CLICKS: {"event_id": "e", "user_id": "u", "item_id": "i", "category_id": "c", "ts": NOW, "query_id": "q", "position": 3},
    Topic.QUERIES: {"event_id": "e", "user_id": "u", "query_id": "q", "text": "Red shoes", "ts": NOW},
    Topic.ORDERS: {
        "event_id": "e",
        "order_id": "o",
        "user_id": "u",
        "ts": NOW,
        "lines": [{"item_id": "i", "category_id": "c", "price": 2}],
    },
    Topic.ITEMS: {
        "item_id": "i",
        "category_id": "c",
        "title": "A",
        "attributes": {"a": "b"},
        "price": 9.5,
        "ts": NOW,
        "text_embedding": [1],
    },
}
REQUEST = RefreshRequest(user_id="u", categories=["c"], log_position=(0, 1, 2, 3), event_ts=NOW, sent_ms=NOW)
DRIFT = DriftReport(
    bundle="b", own="o", codebook="g", measured_ms=NOW, items=3, figures={"relative": 1.1}, action="none", reason="", automatic=True
)
ASKED = CodesRequest(id="a", what="refresh", asked_ms=NOW)
ANSWER = CodesAnswer(id="a", state="done", detail="", at_ms=NOW)
LETTER = DeadLetter(topic="clicks", partition=0, offset=7, reason="bad_json", detail="cut", key=b"u", value=b"{", ts=NOW)


class Target(NamedTuple):
    """Good inputs, the strategy of hostile ones near them, and what is done with each."""

    name: str
    seeds: list[bytes]
    near: Callable[[list[bytes]], st.SearchStrategy[bytes]]
    check: Callable[[bytes], object]

    def __repr__(self) -> str:
        return self.name


class Record(NamedTuple):
    value: bytes
    topic: str = "t"
    partition: int = 0
    offset: int = 0
    timestamp: int = NOW


def _decode(topic: Topic) -> Callable[[bytes], object]:
    def check(payload: bytes) -> None:
        decoded = decode(topic, [payload, b"{}"], NOW, TimeRules())
        assert len(decoded.good) + len(decoded.bad) == 2
        for _, event in decoded.good:
            ids = [getattr(event, name) for name in event.__struct_fields__ if name.endswith("_id")]
            assert not any(value is not None and CONTROLS.search(value) for value in ids)
            assert decode(topic, [msgspec.json.encode(event)], NOW, TimeRules()).good == [(0, event)]
        for refusal in decoded.bad:
            assert refusal.detail

    return check


def _post(body: bytes) -> None:
    for topic in (None, Topic.CLICKS):
        with suppress(RequestError):
            sent = intake.parse(body, topic, NOW, TimeRules(), 1000)
            assert all(record.key and record.value for record in intake.records_of(sent, "", NOW))


def _message(kind: type[msgspec.Struct]) -> Callable[[bytes], object]:
    def check(value: bytes) -> None:
        message = messages.decode(kind, value)
        if not isinstance(message, Skipped):
            assert messages.decode(kind, msgspec.json.encode(message)) == message

    return check


def message_target(message: msgspec.Struct) -> Target:
    """The decoding of one kind of internal message."""
    kind = type(message)
    return Target(f"message {kind.__name__}", [msgspec.json.encode(message)], json_like, _message(kind))


def _row(view: str, kind: type[msgspec.Struct]) -> Callable[[bytes], object]:
    def check(packed: bytes) -> None:
        with suppress(LayoutError):
            row = unpack(kind, packed)
            assert unpack(kind, pack(row)) == row
        with suppress(LayoutError):
            assert len(columns(view, [packed, None])) > 1

    return check


def row_target(view: str, *rows: msgspec.Struct) -> Target:
    """The unpacking of the rows of one view, of which these are some."""
    return Target(f"row {view}", [pack(row) for row in rows], rows_like, _row(view, type(rows[0])))


def _lived() -> Applied:
    """What a user has done: queries, clicks that followed them, orders, and enough of it to be folded."""
    clicks = [Click(event_id=f"e{n}", user_id="u", item_id=f"i{n}", category_id="c", ts=NOW - 9**9 + n * 10**6) for n in range(600)]
    order = Order(event_id="o", order_id="o", user_id="u", ts=NOW, lines=[OrderLine(item_id="i", category_id="c")])
    query = Query(event_id="q", user_id="u", query_id="q", text="shoe", ts=NOW - 9)
    return apply(UserRow(), {}, [one for event in (*clicks, order) for one in behaviours(event)], [search(query)])


LIVED = _lived()
INTERESTS = InterestsRow(categories=["c", ""], vectors=np.ones((2, 4), "<f4").tobytes(), dim=4, generation="g")
CANDIDATES = CandidatesRow(candidates=[Candidate("i", 0.5, "c", "short")], generation="g", event_ts=NOW, published_ts=NOW)
ITEM = ItemRow(category="c", title="t", price=2.5, vector=np.ones(4, "<f4").tobytes(), code=b"abcd", generation="g", ts=NOW)
ROWS = [pack(row) for row in (LIVED.user, LIVED.categories["c"], INTERESTS)]

TARGETS = [
    *(Target(f"events {topic}", [json.dumps(event).encode()], json_like, _decode(topic)) for topic, event in EVENTS.items()),
    Target("api body", [json.dumps([event | {"topic": topic} for topic, event in EVENTS.items()]).encode()], json_like, _post),
    message_target(REQUEST),
    message_target(LETTER),
    *(message_target(message) for message in (item_handlers.SENT, *item_handlers.CODEBOOKS[1:], DRIFT, ASKED, ANSWER)),
    row_target("user", LIVED.user, UserRow()),
    row_target("user_category", LIVED.categories["c"], CategoryRow()),
    row_target("user_interests", INTERESTS, InterestsRow()),
    row_target("user_candidates", CANDIDATES, CandidatesRow()),
    row_target("item", ITEM, ItemRow()),
    Target("ingest of a record", [json.dumps(event).encode() for event in list(EVENTS.values())[:3]], json_like, handlers.ingest_record),
    Target("ingest over stored rows", ROWS, rows_like, handlers.ingest_row),
    Target("refresh of stored rows", ROWS, rows_like, handlers.refresh_row),
    Target("catalogue of a record", [json.dumps(EVENTS[Topic.ITEMS]).encode()], json_like, item_handlers.catalogue_record),
    Target("index of an item code", item_handlers.seeds(), json_like, item_handlers.item_code),
    Target(
        "registry of a codebook",
        [msgspec.json.encode(record) for record in (*item_handlers.CODEBOOKS, DRIFT, ASKED, ANSWER)],
        json_like,
        item_handlers.codebook_record,
    ),
    Target("dlq list", [msgspec.json.encode(LETTER)], json_like, lambda value: found_letter(Record(value))),
]

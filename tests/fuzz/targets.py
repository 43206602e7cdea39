"""What is fuzzed: each target takes any bytes and must end as its module promises, never otherwise."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec
from hypothesis import strategies as st

from features.event_time import TimeRules
from features.events import CONTROLS, Topic, decode
from infra.http import intake
from infra.http.intake import Refused
from stream import messages
from stream.dead_letters import _found as found_letter
from stream.messages import DeadLetter, RefreshRequest, Skipped
from tests.fuzz.mutations import json_like

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
REQUEST = RefreshRequest(user_id="u", categories=["c"], version=(0, 1, 2, 3), event_ts=NOW, sent_ms=NOW)
LETTER = DeadLetter(topic="clicks", partition=0, offset=7, reason="bad_json", detail="cut", key=b"u", value=b"{", ts=NOW)


class Target(NamedTuple):
    """Good inputs, the strategy of hostile ones near them, and what is done with each."""

    name: str
    seeds: list[bytes]
    near: Callable[[list[bytes]], st.SearchStrategy[bytes]]
    check: Callable[[bytes], object]


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
        with suppress(Refused):
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


TARGETS = [
    *(Target(f"events {topic}", [json.dumps(event).encode()], json_like, _decode(topic)) for topic, event in EVENTS.items()),
    Target("api body", [json.dumps([event | {"topic": topic} for topic, event in EVENTS.items()]).encode()], json_like, _post),
    message_target(REQUEST),
    message_target(LETTER),
    Target("dlq list", [msgspec.json.encode(LETTER)], json_like, lambda value: found_letter(Record(value))),
]

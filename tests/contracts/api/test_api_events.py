"""Events sent through the HTTP API, to a real broker."""

import json
from contextlib import closing
from uuid import uuid4

import msgspec
import pytest
from fastapi.testclient import TestClient
from kafka import KafkaConsumer, TopicPartition

from features.events import Click, Topic
from infra.local import embedded

NOW = 1_760_000_000_000
CLICK = {"event_id": "e1", "user_id": "ann", "item_id": "shoe-1", "category_id": "shoes", "ts": NOW}


def published(bootstrap: str, topic: str) -> list:
    """All records of a topic's only partition or partitions."""
    with closing(KafkaConsumer(bootstrap_servers=[bootstrap], enable_auto_commit=False, auto_offset_reset="earliest")) as consumer:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        records = []
        while len(records) < sum(ends.values()):
            records += [record for batch in consumer.poll(timeout_ms=500).values() for record in batch]
        return records


def post(client: TestClient, body: object, path: str = "/v1/events", **headers: str):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(path, content=content, headers={"Content-Type": "application/json", **headers})


def test_one_event_reaches_its_topic(make, bootstrap):
    prefix = f"t{uuid4().hex[:8]}."
    with make(topic_prefix=prefix) as client:
        answer = post(client, {"topic": "clicks", **CLICK})
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "topics": {"clicks": 1}})
    [record] = published(bootstrap, prefix + "clicks")
    assert (record.key, record.timestamp, list(record.headers)) == (b"ann", NOW, [("sent_ms", str(NOW).encode())])
    assert msgspec.json.decode(record.value, type=Click) == Click(**CLICK)


def test_a_list_goes_to_the_topics_that_it_names(make, bootstrap):
    prefix = f"t{uuid4().hex[:8]}."
    line = {"item_id": "i", "category_id": "c"}
    body = [
        {"topic": "clicks", **CLICK},
        {"topic": "queries", "event_id": "q", "user_id": "ann", "query_id": "q", "text": "hat", "ts": NOW},
        {"topic": "orders", "event_id": "o", "user_id": "bob", "order_id": "o", "ts": NOW, "lines": [line]},
        {"topic": "items", "item_id": "i", "category_id": "c", "title": "A hat", "ts": NOW},
    ]
    with make(topic_prefix=prefix) as client:
        answer = post(client, body)
        assert post(client, [CLICK, {**CLICK, "event_id": "e2"}], "/v1/events/clicks").json()["accepted"] == 2
    assert answer.json() == {"accepted": 4, "topics": {"clicks": 1, "queries": 1, "orders": 1, "items": 1}}
    assert [len(published(bootstrap, prefix + topic)) for topic in Topic] == [3, 1, 1, 1]
    assert published(bootstrap, prefix + "items")[0].key == b"i"


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({**CLICK, "ts": NOW + 700_000}, "future"),
        ({**CLICK, "ts": 1}, "beyond_retention"),
        ({**CLICK, "ts": "today"}, "wrong_shape"),
        ({key: value for key, value in CLICK.items() if key != "user_id"}, "wrong_shape"),
        ({**CLICK, "kind": "stare"}, "wrong_shape"),
        (17, "wrong_shape"),
    ],
)
def test_a_wrong_event_is_refused_with_its_position_and_none_is_sent(make, event, reason):
    with make(broker="127.0.0.1:9") as client:
        answer = post(client, [CLICK, event], "/v1/events/clicks")
    assert answer.status_code == 422
    assert [(wrong["position"], wrong["reason"]) for wrong in answer.json()["errors"]] == [(1, reason)]
    assert answer.json()["errors"][0]["detail"] in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "path", "status", "reason"),
    [
        (b"", "/v1/events", 400, "bad_json"),
        (b"{", "/v1/events", 400, "bad_json"),
        (b"[" * 100_000, "/v1/events", 400, "bad_json"),
        (b"[]", "/v1/events", 400, "empty"),
        (b'{"user_id": "ann"}', "/v1/events", 422, "refused"),
        (b'{"topic": "refresh"}', "/v1/events", 422, "refused"),
        (b'{"topic": ["clicks"]}', "/v1/events", 422, "refused"),
        (b'"\xff\xfe"', "/v1/events/clicks", 422, "refused"),
        (b"[" + b",".join([b"{}"] * 1001) + b"]", "/v1/events/clicks", 413, "too_many_events"),
        (b"[" + b" " * 1_048_576 + b"]", "/v1/events", 413, "body_too_large"),
        (b"{}", "/v1/events/refresh", 422, "bad_parameter"),
    ],
)
def test_a_body_that_is_no_event(make, body, path, status, reason):
    with make(broker="127.0.0.1:9") as client:
        answer = post(client, body, path)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)


def test_a_long_body_is_cut_off_while_it_comes(make):
    with make(api_body_limit=100_000) as client:
        answer = client.post("/v1/events", content=(b" " * 65_536 for _ in range(1000)), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert "100000 bytes" in answer.json()["detail"]


def test_another_content_type_is_refused_so_that_no_foreign_page_can_send(api):
    answer = api.post("/v1/events", content=json.dumps({"topic": "clicks", **CLICK}), headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


def test_a_broker_that_is_away_is_a_503(make):
    with make(broker=f"127.0.0.1:{embedded.free_port()}") as client:
        answer = post(client, {"topic": "clicks", **CLICK})
    assert (answer.status_code, answer.json()["reason"]) == (503, "broker_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1

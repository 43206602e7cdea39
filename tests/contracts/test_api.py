"""The HTTP API over a real Valkey and a real broker."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, closing
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from fastapi.testclient import TestClient
from kafka import KafkaConsumer, TopicPartition
from prometheus_client import CollectorRegistry

from features.codec import pack
from features.events import Click, Query, Topic
from features.history import offline_rows
from features.outcomes import Candidate, CandidatesRow, ItemRow
from features.store import Key, OnlineStore, Stored, StoreUnavailable, Version
from features.store.redis import RedisStore
from infra import embedded
from infra.api import make_api
from infra.health import Health
from infra.metrics import Metrics
from infra.processes import Supervisor
from infra.settings import Settings
from stream.connection import Connection
from stream.outbound import Outbound

NOW = 1_760_000_000_000
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>"
CLICK = {"event_id": "e1", "user_id": "ann", "item_id": "shoe-1", "category_id": "shoes", "ts": NOW}
POPULAR = [Candidate("hat-9", 9.0, "hats", "popular"), Candidate("shoe-9", 8.0, "shoes", "popular")]
Make = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("broker")
    with Supervisor(folder / "logs", 5) as supervisor:
        yield embedded.start_broker(supervisor, folder).bootstrap


@pytest.fixture(scope="module")
def store(valkey: str) -> Iterator[OnlineStore]:
    """Ann, who searched for red shoes and clicked, with candidates of every path; and the items."""
    opened = RedisStore(valkey, f"everlong_{uuid4().hex}")
    events = [
        Query(event_id="q1", user_id="ann", query_id="q1", text="Red  Shoes", ts=NOW - 60_000),
        Click(event_id="c1", user_id="ann", item_id="shoe-1", category_id="shoes", ts=NOW - 50_000),
        Click(event_id="c2", user_id="ann", item_id="shoe-2", category_id="shoes", ts=NOW - 40_000, kind="cart"),
        Click(event_id="c3", user_id="ann", item_id="hat-1", category_id="hats", ts=NOW - 40_000_000),
    ]
    users, categories = offline_rows(events)
    rows = [(Key("user", (user,)), pack(row)) for user, row in users.items()]
    rows += [(Key("user_category", key), pack(row)) for key, row in categories.items()]
    found = [
        Candidate("shoe-3", 0.9, "shoes", "category"),
        Candidate("a/b c?", 0.8, "hats", "short"),
        Candidate("hat-2", 0.7, "hats", "category_popular"),
        Candidate("nowhere", 0.6, "misc", "popular"),
    ]
    answer = CandidatesRow(candidates=found, level="full", generation="g1", event_ts=NOW - 40_000, published_ts=NOW - 39_900)
    rows.append((Key("user_candidates", ("ann",)), pack(answer)))
    for item, title in {"shoe-1": "Red shoe", "shoe-2": "Blue shoe", "shoe-3": MARKUP, "a/b c?": "Odd hat", "hat-2": "Top hat"}.items():
        rows.append((Key("item", (item,)), pack(ItemRow(category=item[:3], title=title, price=5.0, generation="g1", ts=NOW))))
    assert all(opened.write([(key, Stored(packed, Version(), NOW)) for key, packed in rows]))
    yield opened
    opened.close()


@pytest.fixture
def make(store: OnlineStore, bootstrap: str) -> Make:
    def make_client(
        *, fallback=None, users=None, health: Health | None = None, held: OnlineStore = store, broker: str = bootstrap, **settings
    ) -> TestClient:
        outbound = Outbound(Connection(bootstrap=broker), give_up_after_s=2)

        @asynccontextmanager
        async def lifespan(_):
            yield
            await outbound.stop()

        app = make_api(
            held, outbound, Metrics(CollectorRegistry()), health or Health(), Settings(**settings),
            fallback=fallback, users=users, clock=lambda: NOW, lifespan=lifespan,
        )  # fmt: skip
        return TestClient(app, raise_server_exceptions=False)

    return make_client


@pytest.fixture
def api(make: Make) -> Iterator[TestClient]:
    with make(topic_prefix=f"t{uuid4().hex[:8]}.", users=lambda: ["ann"]) as client:
        yield client


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


def test_candidates_of_a_user(api):
    answer = api.get("/v1/users/ann/candidates").json()
    assert (answer["user"], answer["level"], answer["generation"]) == ("ann", "full", "g1")
    assert (answer["event_ts"], answer["published_ts"]) == (NOW - 40_000, NOW - 39_900)
    assert [one["item_id"] for one in answer["candidates"]] == ["shoe-3", "a/b c?", "hat-2", "nowhere"]
    assert answer["candidates"][0] == {"item_id": "shoe-3", "score": 0.9, "category_id": "shoes", "path": "category"}


@pytest.mark.parametrize(
    ("query", "items"),
    [
        ("k=2", ["shoe-3", "a/b c?"]),
        ("exclude=shoe-3&exclude=nowhere&k=1", ["a/b c?"]),
        ("exclude=shoe-3,nowhere", ["a/b c?", "hat-2"]),
        ("category=hats", ["a/b c?", "hat-2"]),
        ("category=hats&exclude=hat-2&k=9", ["a/b c?"]),
    ],
)
def test_candidates_can_be_cut_and_filtered(api, query, items):
    assert [one["item_id"] for one in api.get(f"/v1/users/ann/candidates?{query}").json()["candidates"]] == items


def test_candidates_with_titles(api):
    titles = [one["title"] for one in api.get("/v1/users/ann/candidates?titles=true").json()["candidates"]]
    assert titles == [MARKUP, "Odd hat", "Top hat", ""]


@pytest.mark.parametrize("query", ["k=0", "k=1001", "k=many"])
def test_a_wrong_parameter_is_named(api, query):
    answer = api.get(f"/v1/users/ann/candidates?{query}")
    assert answer.status_code == 422
    assert answer.json()["reason"] == "bad_parameter"
    assert "query.k" in answer.json()["detail"]


def test_an_unknown_user_gets_what_is_popular(make):
    with make(fallback=lambda k: POPULAR[:k]) as client:
        answer = client.get("/v1/users/nobody/candidates?category=hats").json()
        assert (answer["level"], [one["item_id"] for one in answer["candidates"]]) == ("popular", ["hat-9"])
        why = client.get("/v1/users/nobody/why/hat-9").json()
        assert (why["path"], why["events"]) == ("popular", [])
    with make() as client:
        answer = client.get("/v1/users/nobody/candidates")
        assert (answer.status_code, answer.json()["level"], answer.json()["candidates"]) == (200, "popular", [])


def test_features_of_a_user(api):
    answer = api.get("/v1/users/ann/features").json()
    assert set(answer) == {"user", "recent", "queries", "categories"}
    newest = {"ts": NOW - 40_000, "item_id": "shoe-2", "category_id": "shoes", "kind": "cart", "query": "red shoes"}
    assert answer["recent"][0] == newest
    assert answer["queries"] == [{"ts": NOW - 60_000, "text": "red shoes"}]
    assert answer["categories"][0] == {"category_id": "shoes", "count": 2, "last_ts": NOW - 40_000}
    one = api.get("/v1/users/ann/features?category=shoes").json()
    assert [event["item_id"] for event in one["sequence"]] == ["shoe-2", "shoe-1"]
    assert one["folded"] == []
    assert api.get("/v1/users/nobody/features").json() == {"user": "nobody", "recent": [], "queries": [], "categories": []}


def test_why_a_long_interest_found_an_item(api):
    why = api.get("/v1/users/ann/why/shoe-3").json()
    assert (why["path"], why["category_id"], why["rank"], why["score"], why["level"]) == ("category", "shoes", 1, 0.9, "full")
    assert (why["title"], why["generation"], why["event_ts"]) == (MARKUP, "g1", NOW - 40_000)
    assert [(event["item_id"], event["title"], event["query"]) for event in why["events"]] == [
        ("shoe-2", "Blue shoe", "red shoes"),
        ("shoe-1", "Red shoe", "red shoes"),
    ]
    assert why["queries"] == ["red shoes"]
    assert "category shoes, drawn from 2 events" in why["because"]


def test_why_by_the_short_interest_shows_the_newest_of_all(api):
    why = api.get("/v1/users/ann/why/a%2Fb%20c%3F").json()
    assert (why["path"], why["title"], why["rank"]) == ("short", "Odd hat", 2)
    assert [event["item_id"] for event in why["events"]] == ["shoe-2", "shoe-1", "hat-1"]


def test_why_of_an_item_that_is_no_candidate(api):
    answer = api.get("/v1/users/ann/why/shoe-1")
    assert (answer.status_code, answer.json()["reason"]) == (404, "not_a_candidate")


def test_an_item(api):
    answer = api.get("/v1/items/shoe-1").json()
    assert (answer["title"], answer["price"], answer["deleted"]) == ("Red shoe", 5.0, False)
    assert api.get("/v1/items/none").status_code == 404
    assert [item["title"] for item in api.get("/v1/items?id=hat-2&id=none&id=shoe-1").json()["items"]] == ["Top hat", "Red shoe"]
    assert api.get("/v1/items").status_code == 422


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


def test_a_token_guards_sending_and_nothing_else(make):
    with make(api_token="hunter2hunter2", topic_prefix=f"t{uuid4().hex[:8]}.") as client:
        event = {"topic": "clicks", **CLICK}
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "hunter2hunter2"},
            {"Authorization": "Bearer hunter2hunter2é"},
        ):
            headers = {name: value.encode() for name, value in headers.items()}
            answer = post(client, event, **headers)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert post(client, event, Authorization="Bearer hunter2hunter2").status_code == 202
        assert client.get("/v1/users/ann/candidates").status_code == 200


def test_a_broker_that_is_away_is_a_503(make):
    with make(broker=f"127.0.0.1:{embedded.free_port()}") as client:
        answer = post(client, {"topic": "clicks", **CLICK})
    assert (answer.status_code, answer.json()["reason"]) == (503, "broker_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1


def test_a_store_that_is_away_is_a_503(make):
    with closing(RedisStore(f"redis://127.0.0.1:{embedded.free_port()}", retries=0)) as nowhere:
        with pytest.raises(StoreUnavailable):
            nowhere.read([Key("user", ("ann",))])
        with make(held=nowhere) as client:
            for path in ("users/ann/candidates", "users/ann/features", "users/ann/why/x", "items/x"):
                answer = client.get(f"/v1/{path}")
                assert (answer.status_code, answer.json()["reason"]) == (503, "store_unavailable")
                assert int(answer.headers["Retry-After"]) >= 1


def test_health_and_metrics(make):
    health = Health("bundle")
    with make(health=health) as client:
        assert client.get("/health/live").json() == {"live": True}
        answer = client.get("/health/ready")
        assert (answer.status_code, answer.json()["reasons"]) == (503, {"bundle": "not yet"})
        health.set_ready("bundle")
        assert client.get("/health/ready").status_code == 200
        client.get("/v1/users/ann/candidates")
        client.get("/v1/users/bob/candidates")
        client.get("/no/such/thing")
        text = client.get("/metrics").text
    assert 'everlong_http_requests_total{route="/v1/users/{user:path}/candidates",status="200"} 2.0' in text
    assert 'everlong_http_requests_total{route="unmatched",status="404"} 1.0' in text
    assert "everlong_ready 1.0" in text
    assert "ann" not in text


def test_every_answer_carries_security_headers(api):
    for path in ("/", "/v1/users", "/v1/users/ann/candidates", "/nothing", "/health/live", "/metrics"):
        headers = api.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in headers
    assert api.get("/docs").status_code == 404


def test_the_page_runs_only_its_own_script(api):
    answer = api.get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
    assert "http" not in policy
    page = answer.text
    assert "://" not in page, "the page loads nothing from elsewhere"
    dangerous = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "onclick=")
    assert [word for word in dangerous if word in page] == []


def test_markup_in_a_title_stays_text(api):
    answer = api.get("/v1/users/ann/why/shoe-3")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["title"] == MARKUP
    assert MARKUP not in api.get("/").text


def test_only_named_origins_and_hosts(make):
    origin = "https://shop.example"
    with make(api_cors_origins=(origin,), api_allowed_hosts=("testserver",)) as client:
        assert client.get("/v1/users", headers={"Origin": origin}).headers["Access-Control-Allow-Origin"] == origin
        assert "Access-Control-Allow-Origin" not in client.get("/v1/users", headers={"Origin": "https://evil.example"}).headers
        assert client.get("/v1/users", headers={"Host": "evil.example"}).status_code == 400


def test_the_page_is_shipped():
    assert (Path(__file__).parents[2] / "infra" / "page.html").stat().st_size < 40_000

"""What the HTTP API answers to reads, over a real Valkey; health, headers and the page."""

import re
from contextlib import closing

import pytest

from features.errors import StoreUnavailableError
from features.outcomes import Candidate
from features.store import Key
from features.store.redis import RedisStore
from infra.build import build
from infra.health import Health
from infra.http.guard import PROBED
from infra.local import embedded
from tests.beside import ROOT

NOW = 1_760_000_000_000
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>"
POPULAR = [Candidate("hat-9", 9.0, "hats", "popular"), Candidate("shoe-9", 8.0, "shoes", "popular")]


def test_candidates_of_a_user(api):
    answer = api.get("/v1/users/ann/candidates").json()
    assert (answer["user"], answer["level"], answer["generation"]) == ("ann", "full", "g1")
    assert (answer["event_ts"], answer["published_ts"]) == (NOW - 40_000, NOW - 39_900)
    assert [one["item_id"] for one in answer["candidates"]] == ["shoe-3", "a/b c?", "hat-2", "nowhere", "shoe-2", "boot-1"]
    assert answer["candidates"][0] == {"item_id": "shoe-3", "score": 0.9, "category_id": "shoes", "path": "category"}


@pytest.mark.parametrize(
    ("query", "items"),
    [
        ("k=2", ["shoe-3", "a/b c?"]),
        ("exclude=shoe-3&exclude=nowhere&k=1", ["a/b c?"]),
        ("exclude=shoe-3,nowhere", ["a/b c?", "hat-2", "shoe-2", "boot-1"]),
        ("category=hats", ["a/b c?", "hat-2"]),
        ("category=hats&exclude=hat-2&k=9", ["a/b c?"]),
    ],
)
def test_candidates_can_be_cut_and_filtered(api, query, items):
    assert [one["item_id"] for one in api.get(f"/v1/users/ann/candidates?{query}").json()["candidates"]] == items


def test_candidates_with_titles(api):
    titles = [one["title"] for one in api.get("/v1/users/ann/candidates?titles=true").json()["candidates"]]
    assert titles == [MARKUP, "Odd hat", "Top hat", "", "Blue shoe", ""]


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


def test_why_of_an_item_that_the_user_had_shows_what_they_did_to_it(api):
    why = api.get("/v1/users/ann/why/shoe-2").json()
    assert (why["path"], why["category_id"], why["because"][:38]) == ("repeat", "shoes", "The user has interacted with it before")
    assert [(event["item_id"], event["kind"]) for event in why["events"]] == [("shoe-2", "cart")]


def test_why_of_an_item_that_a_search_found_names_the_words(api):
    why = api.get("/v1/users/ann/why/boot-1").json()
    assert (why["path"], why["because"][:14], why["queries"], why["events"]) == ("query", "Near the words", ["red shoes"], [])


def test_why_of_an_item_that_is_no_candidate(api):
    answer = api.get("/v1/users/ann/why/shoe-1")
    assert (answer.status_code, answer.json()["reason"]) == (404, "not_a_candidate")


def test_an_item(api):
    answer = api.get("/v1/items/shoe-1").json()
    assert (answer["title"], answer["price"], answer["deleted"]) == ("Red shoe", 5.0, False)
    assert api.get("/v1/items/none").status_code == 404
    assert [item["title"] for item in api.get("/v1/items?id=hat-2&id=none&id=shoe-1").json()["items"]] == ["Top hat", "Red shoe"]
    assert api.get("/v1/items").status_code == 422


def test_a_store_that_is_away_is_a_503(make):
    with closing(RedisStore(f"redis://127.0.0.1:{embedded.free_port()}", retries=0)) as nowhere:
        with pytest.raises(StoreUnavailableError):
            nowhere.read([Key("user", ("ann",))])
        with make(held=nowhere) as client:
            for path in ("users/ann/candidates", "users/ann/features", "users/ann/why/x", "items/x"):
                answer = client.get(f"/v1/{path}")
                assert (answer.status_code, answer.json()["reason"]) == (503, "store_unavailable")
                assert int(answer.headers["Retry-After"]) >= 1


def test_health_and_metrics(make):
    health = Health("bundle")
    with make(health=health) as client:
        assert client.get("/health/live").json() == {"live": True, "role": "api", "version": build().version}
        answer = client.get("/health/ready")
        assert (answer.status_code, answer.json()["reasons"]) == (503, {"bundle": "not yet"})
        health.set_ready("bundle")
        assert client.get("/health/ready").status_code == 200
        client.get("/v1/users/ann/candidates")
        client.get("/v1/users/bob/candidates")
        client.get("/no/such/thing")
        text = client.get("/metrics").text
    assert 'everlong_http_requests_total{route="/v1/users/{user}/candidates",status="200"} 2.0' in text
    assert 'everlong_http_requests_total{route="unmatched",status="404"} 1.0' in text
    assert "everlong_ready 1.0" in text
    assert re.search(r"\bann\b", text) is None


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
    with make(api_cors_origins=(origin,), api_allowed_hosts=("localhost",)) as client:
        assert client.get("/v1/users", headers={"Origin": origin}).headers["Access-Control-Allow-Origin"] == origin
        assert "Access-Control-Allow-Origin" not in client.get("/v1/users", headers={"Origin": "https://evil.example"}).headers
        refused = client.get("/v1/users", headers={"Host": "evil.example"})
        assert (refused.status_code, refused.json()["reason"]) == (400, "unknown_host")
        assert "EVERLONG_API_ALLOWED_HOSTS" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("shop.example", 200), ("Shop.Example:8080", 200), ("a.below.example", 200), ("[::1]:8080", 200),
        ("below.example", 400), ("notbelow.example", 400), ("shop.example.evil", 400), ("[::2]", 400), ("[broken", 400), ("", 400),
    ],
)  # fmt: skip
def test_hosts_are_compared_whole_without_port_and_case(make, host, status):
    with make(api_allowed_hosts=("shop.example", "*.below.example", "::1")) as client:
        assert client.get("/v1/users", headers={"Host": host}).status_code == status


@pytest.mark.parametrize("path", PROBED)
def test_probes_and_scrapes_may_name_an_address(make, path):
    with make(api_allowed_hosts=("shop.example",)) as client:
        assert client.get(path, headers={"Host": "10.0.0.7:8080"}).status_code == 200


def test_the_page_is_shipped():
    assert (ROOT / "infra" / "http" / "page.html").stat().st_size < 40_000

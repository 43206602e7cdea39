"""Who may do what over HTTP: tokens with scopes, hosts, and what is told to whom."""

from uuid import uuid4

import pytest

from features.errors import StoreUnavailableError
from infra.errors import UnprotectedApiError
from infra.http.server import run
from infra.settings import Settings

NOW = 1_760_000_000_000
READ, OTHER_READ, WRITE, BOTH, ADMIN = (f"{name}-0123456789abcdef" for name in ("read", "other", "write", "both", "admin"))
TOKENS = {"api_read_tokens": f"{READ},{OTHER_READ},{BOTH}", "api_write_tokens": f"{WRITE},{BOTH}", "api_admin_tokens": ADMIN}
CLICK = {"topic": "clicks", "event_id": "c9", "user_id": "ann", "item_id": "i", "category_id": "c", "ts": NOW}
ITEM = {"topic": "items", "item_id": "i", "category_id": "c", "title": "t", "ts": NOW}
READS = tuple(
    f"/v1/{path}" for path in ("users", "users/ann/features", "users/ann/candidates", "users/ann/why/shoe-3", "items/shoe-1", "items?id=x")
)
OPEN = ("/", "/health/live", "/health/ready", "/metrics", "/openapi.json")


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def guarded(make):
    with make(topic_prefix=f"t{uuid4().hex[:8]}.", **TOKENS) as client:
        yield client


@pytest.mark.fault(
    "A request without a token, or with a token of another scope, while tokens are set",
    "The API answers 401 or 403 with WWW-Authenticate and a JSON reason; only health, metrics, the page and the API description are open",
)
@pytest.mark.parametrize(
    ("token", "read", "write", "items"),
    [
        (None, 401, 401, 401),
        ("wrong-0123456789abcdef", 401, 401, 401),
        (READ[:-1], 401, 401, 401),
        (READ, 200, 403, 403),
        (OTHER_READ, 200, 403, 403),
        (WRITE, 403, 202, 403),
        (BOTH, 200, 202, 403),
        (ADMIN, 200, 202, 202),
    ],
)
def test_a_token_allows_what_its_scope_says(guarded, token, read, write, items):
    headers = bearer(token)
    assert {path: guarded.get(path, headers=headers).status_code for path in READS} == dict.fromkeys(READS, read)
    sent = [
        (guarded.post("/v1/events", json=CLICK, headers=headers), write),
        (guarded.post("/v1/events/clicks", json=CLICK, headers=headers), write),
        (guarded.post("/v1/events", json=[CLICK, ITEM], headers=headers), items),
        (guarded.post("/v1/events/items", json=ITEM, headers=headers), items),
    ]
    for answer, status in sent:
        assert answer.status_code == status, answer.text
        if status in (401, 403):
            assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="everlong"')
            assert answer.json()["reason"] in ("no_token", "wrong_token", "insufficient_scope")
    assert {path: guarded.get(path, headers=headers).status_code for path in OPEN} == dict.fromkeys(OPEN, 200)


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", f"Basic {ADMIN}", ADMIN, f"Bearer {ADMIN}x", f"Bearer {ADMIN} {ADMIN}", "Bearer é"]
)
def test_another_authorization_is_no_token(guarded, given):
    assert guarded.get("/v1/users", headers={"Authorization": given.encode()}).status_code == 401


def test_a_scheme_is_compared_without_case(guarded):
    assert guarded.get("/v1/users", headers={"Authorization": f"bearer {READ}"}).status_code == 200


def test_the_description_names_the_scheme(guarded):
    described = guarded.get("/openapi.json").json()
    assert described["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    for path, methods in described["paths"].items():
        for operation in methods.values():
            assert ("security" in operation) == path.startswith("/v1/"), path


def test_without_tokens_everything_is_open_on_this_machine(make):
    with make(topic_prefix=f"t{uuid4().hex[:8]}.") as client:
        assert client.get("/v1/users").status_code == 200
        assert client.post("/v1/events", json=[CLICK, ITEM]).status_code == 202


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "shop.example"])
@pytest.mark.fault(
    "An API without tokens on an address that other machines can reach",
    "It exits at once with an error that names EVERLONG_API_ADMIN_TOKENS and EVERLONG_API_ALLOW_ANONYMOUS",
)
def test_the_api_does_not_start_open_to_other_machines(host):
    settings = Settings(http_host=host, kafka_bootstrap="127.0.0.1:1", store_url="memory://")
    with pytest.raises(UnprotectedApiError, match=r"EVERLONG_API_ADMIN_TOKENS.*EVERLONG_API_ALLOW_ANONYMOUS=true"):
        run(settings)
    Settings(http_host=host, api_allow_anonymous=True).check_access()
    Settings(http_host=host, api_read_tokens=READ).check_access()
    Settings(http_host="127.0.0.2").check_access()


@pytest.mark.fault(
    "A request with a foreign Host header (DNS rebinding)",
    "The API answers 400 and names the setting for allowed hosts; on a loopback address it accepts only loopback names by default",
)
def test_on_loopback_only_loopback_names_are_answered(make):
    with make() as client:
        for host in ("localhost", "LocalHost:8080", "127.0.0.1:8080", "[::1]:8080"):
            assert client.get("/v1/users", headers={"Host": host}).status_code == 200, host
        for host in ("evil.example", "127.0.0.1.evil.example", "10.0.0.1", "testserver", ""):
            answer = client.get("/v1/users", headers={"Host": host})
            assert (answer.status_code, answer.json()["reason"]) == (400, "unknown_host"), host
            assert "EVERLONG_API_ALLOWED_HOSTS" in answer.json()["detail"]
    with make(http_host="0.0.0.0", api_read_tokens=READ) as client:
        assert client.get("/v1/users", headers={"Host": "shop.example", **bearer(READ)}).status_code == 200


def test_users_are_listed_unless_switched_off(make):
    with make(users=lambda: ["ann"]) as client:
        assert client.get("/v1/users").json() == {"users": ["ann"]}
    with make(users=lambda: ["ann"], api_list_users=False) as client:
        assert client.get("/v1/users").json() == {"users": []}


class Away:
    """A store whose error names its address, as a real one's does."""

    def read(self, keys):
        raise StoreUnavailableError("redis://10.1.2.3:6379/0: Connection refused")


@pytest.mark.fault(
    "An API request during an outage of the store or the broker",
    "Responses and readiness report the failed part without its address; only the log shows the address",
)
def test_no_address_of_a_store_or_broker_is_answered(make, caplog):
    with make(held=Away(), broker="127.0.0.1:9") as client:
        read, sent = client.get("/v1/users/ann/features"), client.post("/v1/events", json=CLICK)
    for answer, reason in ((read, "store_unavailable"), (sent, "broker_unavailable")):
        assert (answer.status_code, answer.json()["reason"]) == (503, reason)
        assert "10.1.2.3" not in answer.text
        assert "127.0.0.1" not in answer.text
    assert "redis://10.1.2.3:6379/0" in caplog.text
    assert "127.0.0.1:9" in caplog.text


@pytest.mark.fault("A user or item id with a slash, %, ? or /why/", "Every read route works for the id")
@pytest.mark.parametrize("user", ["a/why/b", "why/x/why", "a/features", "x?y#z", "100%", "a%2Fb", "é ü", "/", "a//b", "../why/z", "+"])
def test_every_id_can_be_read(make, user):
    from urllib.parse import quote

    with make() as client:
        for route, status in (("features", 200), ("candidates", 200), (f"why/{quote('b/why/c', safe='')}", 404)):
            answer = client.get(f"/v1/users/{quote(user, safe='')}/{route}")
            assert answer.status_code == status, answer.text
            assert user in (answer.json().get("user"), *[word for word in [user] if word in answer.json().get("detail", "")])
        assert client.get(f"/v1/items/{quote(user, safe='')}").json()["reason"] == "no_such_item"

"""A live store with one user, a live broker, and clients of the API over both."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from features.codec import pack
from features.events import Click, Query
from features.history import offline_rows
from features.outcomes import Candidate, CandidatesRow, ItemRow
from features.store import Key, LogPosition, OnlineStore, Stored
from features.store.redis import RedisStore
from infra.health import Health
from infra.http.api import make_api
from infra.local import embedded
from infra.local.processes import Supervisor
from infra.metrics import ApiMetrics
from infra.settings import Settings
from stream.kafka.connection import Connection
from stream.kafka.producer import Outbound

NOW = 1_760_000_000_000
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>"
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
        Candidate("shoe-2", 2.5, "shoes", "repeat"),
        Candidate("boot-1", 0.5, "shoes", "query"),
    ]
    answer = CandidatesRow(candidates=found, level="full", generation="g1", event_ts=NOW - 40_000, published_ts=NOW - 39_900)
    rows.append((Key("user_candidates", ("ann",)), pack(answer)))
    for item, title in {"shoe-1": "Red shoe", "shoe-2": "Blue shoe", "shoe-3": MARKUP, "a/b c?": "Odd hat", "hat-2": "Top hat"}.items():
        rows.append((Key("item", (item,)), pack(ItemRow(category=item[:3], title=title, price=5.0, generation="g1", ts=NOW))))
    assert all(opened.write([(key, Stored(packed, LogPosition(), NOW)) for key, packed in rows]))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
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
            held, outbound, ApiMetrics(), health or Health(), Settings(**settings),
            fallback=fallback, users=users, clock=lambda: NOW, lifespan=lifespan,
        )  # fmt: skip
        return TestClient(app, "http://localhost", raise_server_exceptions=False)

    return make_client


@pytest.fixture
def api(make: Make) -> Iterator[TestClient]:
    with make(topic_prefix=f"t{uuid4().hex[:8]}.", users=lambda: ["ann"]) as client:
        yield client

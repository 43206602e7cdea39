"""A damaged row is an answer with its reason, not an unhandled error."""

import pytest
from fastapi.testclient import TestClient

from features.codec import LAYOUT, pack
from features.outcomes import CandidatesRow
from features.rows import UserRow
from features.store import Key, LogPosition, Stored
from features.store.memory import MemoryStore
from infra.health import Health
from infra.http.api import make_api
from infra.metrics import ApiMetrics
from infra.settings import Settings

BAD = {"user": pack(UserRow())[:-1] + b"\xd9\x02\xff\xfe", "user_candidates": b"\xff" * 200, "item": b""}


@pytest.mark.fault("An unreadable row in an API read", "The API answers 500 with `row_unreadable` and the remedy")
def test_an_unreadable_row_is_named():
    store = MemoryStore()
    store.write([(Key(view, ("u",)), Stored(packed, LogPosition(), 0)) for view, packed in BAD.items()])
    store.write([(Key("user_candidates", ("other",)), Stored(bytes([0x96, LAYOUT + 1]) + pack(CandidatesRow())[2:], LogPosition(), 0))])
    client = TestClient(make_api(store, None, ApiMetrics(), Health(), Settings()), base_url="http://127.0.0.1")
    for path in ("/v1/users/u/features", "/v1/users/u/candidates", "/v1/users/u/why/i", "/v1/items/u", "/v1/items?id=u"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["reason"]) == (500, "row_unreadable"), path
        assert "next event" in answer.json()["detail"]
    answer = client.get("/v1/users/other/candidates")
    assert (answer.status_code, answer.json()["reason"]) == (500, "layout")

"""Who `everlong replay` waits for."""

from collections import Counter

import pytest

from features.events import Click, Item, Query
from infra.local.accounts import answerable

TS = 1_700_000_000_000


@pytest.mark.fault("A file in which every event of one user becomes a dead letter", "Replay waits only for the other users and ends")
def test_nobody_waits_for_a_user_who_has_dead_letters_only() -> None:
    clicks = [
        Click(event_id=str(n), user_id=user, item_id="i", category_id="c", ts=TS) for n, user in enumerate(["anna", "tom", "tom", "é", "i"])
    ]
    events = [
        Item(item_id="i", category_id="c", title="", ts=TS),
        Query(event_id="q", user_id="anna", query_id="q", text="x", ts=TS),
        *clicks,
    ]
    dead = Counter({b"tom": 2, b"anna": 1, "é".encode(): 1})
    assert answerable(events, dead) == ["anna", "i"]
    assert answerable(events, Counter()) == ["anna", "i", "tom", "é"]

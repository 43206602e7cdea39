"""Damaged rows in front of the refresh pipeline: nobody waits for them, and what is its own it replaces."""

import msgspec
import numpy as np
import pytest

from features.codec import pack
from features.outcomes import InterestsRow
from features.rows import UserRow, behaviours
from features.store import Key, LogPosition, Stored
from tests.refresh_world import System, click, request

GOOD_USER = pack(UserRow(recent=behaviours(click(1))))
DAMAGED = [b"", b"\xff" * 200, GOOD_USER[:-1], b"\xd9\x02\xff\xfe", GOOD_USER.replace(b"\xa2c1", b"\xa2\xff\xfe")]


@pytest.mark.fault(
    "An unreadable row of a user, a category or interests, during a refresh",
    "It is treated as empty and counted, interests are recomputed, and other users are not affected",
)
@pytest.mark.parametrize("packed", DAMAGED)
@pytest.mark.parametrize("behind", [False, True])
def test_unreadable_rows_are_taken_as_empty(packed, behind):
    system = System()
    requests = system.happens(*(click(n, category, user) for user in ("u", "v") for n, category in enumerate(("c1", "c2"))))
    system.process(requests)
    before = len(system.answer([requests[-1]]).candidates)
    for view, entities in (("user", ("u",)), ("user_category", ("u", "c1")), ("user_interests", ("u",))):
        system.store._rows[Key(view, entities)] = Stored(packed, LogPosition(0, 9), 5)
    outcome = system.process([request("u", "c1", log_position=(0, 9, 0, 0)), request("v", "c1", log_position=(0, 9, 0, 0))], behind)
    found = {one.user_id: one for one, _ in outcome.sets}
    assert (found["u"].level, found["v"].level) == ("popular", "short" if behind else "full")
    assert found["u"].candidates
    assert len(found["v"].candidates) == before
    assert outcome.unreadable["user"] == outcome.unreadable["user_interests"] == 1
    assert [apart.view for apart in system.store.quarantined()] == ["user_interests"]
    assert system.row(InterestsRow, "user_interests") is not None
    again = system.process([request("u", log_position=(0, 9, 0, 0))], behind).unreadable
    assert (again["user"], again["user_interests"]) == (1, 0)


@pytest.mark.parametrize("vectors", [np.full((2, 32), np.nan, "<f4").tobytes(), b"\0" * 4, b"\0\0\0"])
def test_interests_of_wrong_widths_or_not_finite_are_computed_again(vectors):
    system = System()
    requests = system.happens(click(1))
    expected = system.answer(requests)
    row = msgspec.structs.replace(system.row(InterestsRow, "user_interests"), vectors=vectors)
    [kept] = system.store.read([Key("user_interests", ("u",))])
    system.store.write([(Key("user_interests", ("u",)), kept._replace(packed=pack(row)))])
    assert system.answer([request("u", log_position=tuple(kept.log_position))]).candidates == expected.candidates
    assert len(system.interests()) > 1

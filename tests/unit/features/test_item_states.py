"""The state of an item is a function of the set of its item events, whatever their order."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.codec import pack, unpack
from features.embeddings import commonest_width, embedding_widths, ignored_embeddings
from features.event_time import TimeRules
from features.events import MAX_EVENT_BYTES, Item, Topic, decode, encode
from features.item_states import bare, item_of, newest, same, state_of, winner
from features.outcomes import ItemRow

NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
STATES = st.builds(
    Item,
    item_id=st.sampled_from("ab"),
    category_id=st.sampled_from(["c", "d"]),
    title=st.sampled_from(["", "red", "blue"]),
    ts=st.integers(0, 3),
    attributes=st.dictionaries(st.sampled_from(["brand", "in_stock"]), st.sampled_from(["true", "false"])),
    price=st.sampled_from([0.0, 1.0, 2.5]),
    image_embedding=st.none() | st.lists(NUMBERS, max_size=3),
    text_embedding=st.none() | st.just([0.1, 0.2]),
    deleted=st.booleans(),
    inferred=st.booleans(),
)


def described(**changed):
    return Item(**{"item_id": "a", "category_id": "c", "title": "t", "ts": 5} | changed)


@pytest.mark.fault("States of an item in any order, with repetitions", "The state with the newest `ts` wins, and a deletion wins a tie")
@given(st.lists(STATES, max_size=8), st.randoms())
def test_the_state_that_counts_depends_on_the_set_of_states_alone(states, random):
    expected = {item: pack(state_of(state)) for item, state in newest(states).items()}
    shuffled = states + random.choices(states, k=3) if states else []
    random.shuffle(shuffled)
    assert {item: pack(state_of(state)) for item, state in newest(shuffled).items()} == expected
    for item, state in newest(states).items():
        mine = [other for other in states if other.item_id == item and (not other.inferred or other.deleted)]
        assert state.ts == max((other.ts for other in mine), default=state.ts)
        assert state.deleted == any(other.deleted for other in mine if other.ts == state.ts)


def test_a_described_state_beats_an_inferred_one_whatever_their_times():
    inferred, gone = described(ts=99, inferred=True, title=""), described(deleted=True)
    for known in (described(), gone):
        assert winner(known, inferred) is winner(inferred, known) is known
    assert winner(inferred, described(ts=100, inferred=True)).ts == 100


@given(STATES)
def test_a_row_gives_the_event_again_and_the_event_the_row(item):
    state = state_of(item)
    again = item_of(item.item_id, unpack(ItemRow, pack(state)))
    assert state_of(again) == state == bare(state)
    assert same(again, item)
    [(_, decoded)] = decode(Topic.ITEMS, [encode(again)], 10, TimeRules()).good
    assert state_of(decoded) == state


@pytest.mark.parametrize("wrong", [[], [0.0, 0.0], [1e308, 1.0], [math.inf], [math.nan, 1.0]])
def test_an_embedding_that_float32_cannot_keep_counts_as_missing(wrong):
    assert state_of(described(image_embedding=wrong)) == state_of(described())


def test_an_event_made_from_a_row_is_not_longer_than_the_one_it_came_from():
    rng = np.random.default_rng(0)
    for numbers in (rng.normal(size=4096).astype("<f4"), rng.integers(0, 10**6, 4096), np.full(4096, 1e-30), np.full(4096, 7)):
        item = described(text_embedding=[float(number) for number in numbers.astype("<f4")])
        first = encode(described()) + b",".join(str(number).encode() for number in numbers.tolist())
        assert len(encode(item_of("a", state_of(item)))) <= max(len(first), MAX_EVENT_BYTES)


@pytest.mark.fault("Embeddings of several widths in a catalogue", "The most common width is used, and the others are reported and ignored")
def test_the_commonest_width_of_embeddings_is_used_and_the_others_are_named():
    items = [described(image_embedding=[1.0] * width) for width in (4, 4, 4, 8, 8, 16, 0)] + [described(image_embedding=[0.0, 0.0])]
    widths = embedding_widths(items)
    assert (dict(widths["image"]), dict(widths["text"])) == ({4: 3, 8: 2, 16: 1, 0: 2}, {})
    assert (commonest_width(widths["image"]), commonest_width(widths["text"])) == (4, 1)
    [told] = ignored_embeddings(widths, {"image": 4, "text": 1})
    assert told == "image embeddings: 3 of 4 numbers are used, 2 unusable, 2 of 8 numbers, 1 of 16 numbers are ignored"
    assert ignored_embeddings(embedding_widths(items[:3]), {"image": 4, "text": 1}) == []

"""The merge that reads several topics of a partition in step."""

from collections import defaultdict
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.kafka.timestamp_merge import MergeLimits, TimestampMerge

STEP = ("clicks", "queries", "orders")
SMALL = MergeLimits(grace_s=1.0, piece_min=2, piece_max=5, lane_full=10)


def records(*timestamps):
    return [SimpleNamespace(timestamp=ts) for ts in timestamps]


def stamps(piece):
    return None if piece is None else (piece[0], [record.timestamp for record in piece[1]])


class Broker:
    """What is still to come, by lane; lanes that are not named are caught up."""

    def __init__(self, *behind):
        self.behind = set(behind)

    def caught_up(self, lane):
        return lane not in self.behind


def test_live_traffic_waits_for_nobody():
    merge = TimestampMerge(STEP, Broker().caught_up, SMALL)
    merge.add(("clicks", 0), records(7))
    assert stamps(merge.take(0.0)) == (("clicks", 0), [7])
    assert merge.take(0.0) is None
    assert len(merge) == 0


def test_the_oldest_first_record_goes_first():
    merge = TimestampMerge(STEP, Broker().caught_up, SMALL)
    merge.add(("clicks", 0), records(10, 11))
    merge.add(("queries", 0), records(5, 6))
    merge.add(("orders", 0), records(8))
    assert [stamps(merge.take(0.0))[0][0] for _ in range(3)] == ["queries", "orders", "clicks"]


def test_a_list_waits_for_a_topic_that_is_behind():
    broker = Broker(("queries", 0))
    merge = TimestampMerge(STEP, broker.caught_up, SMALL)
    merge.add(("clicks", 0), records(10))
    assert merge.take(0.0) is None
    assert len(merge) == 1
    broker.behind.clear()
    merge.add(("queries", 0), records(3))
    assert stamps(merge.take(0.5)) == (("queries", 0), [3])
    assert stamps(merge.take(0.5)) == (("clicks", 0), [10])


def test_it_goes_on_as_soon_as_the_other_is_known_to_have_nothing():
    broker = Broker(("queries", 0))
    merge = TimestampMerge(STEP, broker.caught_up, SMALL)
    merge.add(("clicks", 0), records(10))
    assert merge.take(0.0) is None
    broker.behind.clear()
    assert stamps(merge.take(0.1)) == (("clicks", 0), [10])


def test_it_waits_for_the_grace_time_once_and_again_only_after_the_late_topic_came():
    merge = TimestampMerge(STEP, Broker(("queries", 0)).caught_up, SMALL)
    merge.add(("clicks", 0), records(1, 2, 3, 4, 5, 6, 7))
    assert merge.take(0.0) is None
    assert merge.take(0.99) is None
    assert stamps(merge.take(1.0)) == (("clicks", 0), [1, 2, 3, 4, 5])
    assert stamps(merge.take(1.0)) == (("clicks", 0), [6, 7])
    merge.add(("clicks", 0), records(8))
    assert stamps(merge.take(1.1)) == (("clicks", 0), [8])
    merge.add(("queries", 0), records(2))
    assert stamps(merge.take(1.2)) == (("queries", 0), [2])
    merge.add(("clicks", 0), records(9))
    assert merge.take(1.3) is None


def test_a_waiting_partition_does_not_hold_up_another():
    merge = TimestampMerge(STEP, Broker(("queries", 0)).caught_up, SMALL)
    merge.add(("clicks", 0), records(1))
    merge.add(("clicks", 1), records(2))
    assert stamps(merge.take(0.0)) == (("clicks", 1), [2])
    assert merge.take(0.0) is None


def test_partitions_take_turns():
    merge = TimestampMerge(STEP, Broker().caught_up, SMALL)
    merge.add(("clicks", 0), records(*range(10)))
    merge.add(("clicks", 1), records(*range(10)))
    assert [stamps(merge.take(0.0))[0][1] for _ in range(4)] == [0, 1, 0, 1]


def test_a_long_list_ends_where_the_other_topics_turn_comes():
    merge = TimestampMerge(STEP, Broker().caught_up, SMALL)
    merge.add(("clicks", 0), records(1, 2, 3, 4, 9))
    merge.add(("queries", 0), records(3, 4, 5))
    assert stamps(merge.take(0.0)) == (("clicks", 0), [1, 2, 3])
    assert stamps(merge.take(0.0)) == (("queries", 0), [3, 4])  # not fewer than piece_min
    assert stamps(merge.take(0.0)) == (("clicks", 0), [4, 9])


def test_topics_out_of_step_wait_for_nobody_but_are_cut():
    merge = TimestampMerge(STEP, Broker(("queries", 0)).caught_up, SMALL)
    merge.add(("items", 0), records(*range(7)))
    assert stamps(merge.take(0.0)) == (("items", 0), [0, 1, 2, 3, 4])
    assert stamps(merge.take(0.0)) == (("items", 0), [5, 6])


def test_a_lane_with_enough_is_full_and_clear_drops_all():
    merge = TimestampMerge(STEP, Broker(("queries", 0)).caught_up, SMALL)
    merge.add(("clicks", 0), records(*range(10)))
    assert merge.full() == {("clicks", 0)}
    merge.clear()
    assert merge.full() == set()
    assert merge.take(100.0) is None


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(STEP), st.integers(0, 1), st.lists(st.integers(0, 50), min_size=1, max_size=12).map(sorted)), max_size=12
    ),
    st.sets(st.tuples(st.sampled_from(STEP), st.integers(0, 1))),
)
def test_nothing_is_lost_doubled_or_turned_round(lists, behind):
    merge = TimestampMerge(STEP, Broker(*behind).caught_up, SMALL)
    added, taken = defaultdict(list), defaultdict(list)
    now = 0.0
    for topic, partition, timestamps in lists:
        found = records(*timestamps)
        added[topic, partition] += found
        merge.add((topic, partition), found)
        if piece := merge.take(now):
            taken[piece[0]] += piece[1]
        now += 0.3
    for _ in range(1000):
        now += 0.6
        while piece := merge.take(now):
            assert 0 < len(piece[1]) <= SMALL.piece_max
            taken[piece[0]] += piece[1]
        if not len(merge):
            break
    assert {lane: list(map(id, found)) for lane, found in taken.items()} == {lane: list(map(id, found)) for lane, found in added.items()}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.sampled_from(STEP)), max_size=200).map(sorted))
def test_all_there_no_topic_runs_further_ahead_than_a_piece(events):
    merge = TimestampMerge(STEP, Broker().caught_up, SMALL)
    for topic in STEP:
        merge.add((topic, 0), records(*(ts for ts, name in events if name == topic)))
    left = {topic: [ts for ts, name in events if name == topic] for topic in STEP}
    while piece := merge.take(0.0):
        (topic, _), found = piece
        others = [ts[0] for name, ts in left.items() if name != topic and ts]
        ahead = sum(record.timestamp > min(others, default=1000) for record in found)
        assert ahead < SMALL.piece_min
        left[topic] = left[topic][len(found) :]

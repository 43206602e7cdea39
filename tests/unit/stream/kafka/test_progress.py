"""The watchdog's book: who stands still, and how far behind each partition is."""

from stream.kafka.progress import Progress

A, B = ("clicks", 0), ("clicks", 1)


def at(fetched, end, committed=0):
    return {"fetched": fetched, "end": end, "committed": committed}


def started(*partitions):
    progress = Progress(stall_after_s=60)
    progress.assigned(partitions, now=0.0)
    return progress


def test_an_idle_partition_never_stalls():
    progress = started(A)
    for now in range(0, 1000, 5):
        progress.observed(A, **at(100, 100, committed=100), now=now)
        assert progress.stalled(now) == []
    assert progress.lag() == {A: 0}


def test_a_list_that_is_not_finished_stalls():
    progress = started(A)
    progress.delivered(A, 10, now=500.0)
    assert progress.stalled(559.0) == []
    assert progress.stalled(560.0) == [A]
    progress.acked(A, 10, now=561.0)
    assert progress.stalled(700.0) == []


def test_a_consumer_that_died_silently_stalls():
    progress = started(A)
    progress.observed(A, **at(100, 100), now=1000.0)
    progress.observed(A, **at(100, 150), now=1005.0)
    for now in range(1010, 1060, 5):
        progress.observed(A, **at(100, 150 + now), now=now)
        assert progress.stalled(now) == []
    assert progress.stalled(1065.0) == [A]
    progress.observed(A, **at(120, 2000), now=1070.0)
    assert progress.stalled(1070.0) == []


def test_a_partition_never_fetched_stalls():
    progress = started(A)
    progress.observed(A, **at(None, 5), now=10.0)
    assert progress.stalled(59.0) == []
    assert progress.stalled(71.0) == [A]


def test_an_empty_partition_that_was_never_fetched_does_not():
    progress = started(A)
    progress.observed(A, **at(0, 0), now=10.0)
    assert progress.stalled(500.0) == []


def test_waiting_for_ones_turn_is_no_standing_still_for_a_while():
    progress = started(A, B)
    progress.observed(B, **at(0, 5), now=0.0)
    for now in range(0, 300, 10):
        progress.delivered(A, now + 1, now=now)
        progress.acked(A, now, now=now)
        assert progress.stalled(now) == []
    progress.delivered(A, 1000, now=300.0)
    assert progress.stalled(301.0) == [B]


def test_waiting_for_the_store_is_no_standing_still():
    progress = started(A)
    progress.delivered(A, 10, now=0.0)
    progress.alive(now=50.0)
    assert progress.stalled(100.0) == []
    assert progress.stalled(110.0) == [A]


def test_lag_counts_from_what_is_done():
    progress = started(A, B)
    assert progress.lag() == {}
    progress.observed(A, **at(40, 100, committed=30), now=1.0)
    assert progress.lag() == {A: 70}
    progress.delivered(A, 60, now=2.0)
    progress.acked(A, 50, now=3.0)
    assert progress.lag() == {A: 50}


def test_markers_at_the_end_of_the_log_are_no_lag():
    progress = started(A)
    progress.delivered(A, 99, now=1.0)
    progress.acked(A, 99, now=1.0)
    progress.observed(A, **at(100, 100), now=2.0)
    assert progress.lag() == {A: 0}
    assert progress.stalled(500.0) == []


def test_between_revocation_and_assignment_it_is_open_whose_partitions_are():
    progress = Progress(stall_after_s=60)
    assert progress.rebalancing
    progress.assigned([], now=0.0)
    assert not progress.rebalancing
    progress.revoked()
    assert progress.rebalancing


def test_a_rebalance_starts_anew():
    progress = started(A)
    progress.delivered(A, 10, now=0.0)
    progress.revoked()
    assert progress.stalled(100.0) == []
    progress.assigned([B], now=100.0)
    progress.delivered(A, 10, now=101.0)  # late, of the time before
    assert progress.partitions() == [B]
    assert progress.stalled(150.0) == []

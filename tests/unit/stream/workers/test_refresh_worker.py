"""How lists of requests are answered: who gets a short answer, who is pending a full one, and who gives it when the worker cannot."""

import asyncio
from collections import Counter
from typing import NamedTuple

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from infra.monitors import RefreshMonitor
from stream.errors import PublishError
from stream.kafka.messages import CandidateSet, RefreshRequest
from stream.kafka.progress import Progress
from stream.pipelines.refresh import RefreshOutcome
from stream.workers.agents import Batch
from stream.workers.refresh import PendingFullRefreshes, RefreshOptions, RefreshWorker

PLACES = [("p.refresh", number) for number in range(4)]
BATCH, BUDGET, STALL_S = 2, 5, 60


def asked(user, *categories, sent_ms=7):
    return RefreshRequest(user_id=user, categories=list(categories), log_position=(0, 1, 0, 0), event_ts=5, sent_ms=sent_ms)


class Record(NamedTuple):
    partition: int
    value: bytes
    topic: str = "p.refresh"
    offset: int = 0


def records(users, partition=0):
    return [Record(partition, msgspec.json.encode(asked(user, "c"))) for user in users]


class World:
    """A worker whose model takes `batch_s` a batch on its clock, and whose broker refuses the next `outages` publications."""

    def __init__(self, batch_s=0.0):
        self.now, self.batch_s, self.outages = 0.0, batch_s, 0
        self.answers, self.published, self.stalled = [], [], []
        self.sees = None  # how many requests come to wait while a batch is answered
        self.progress, self.registry = Progress(STALL_S), CollectorRegistry()
        self.monitor = RefreshMonitor(self.registry)
        options = RefreshOptions(topic_prefix="p.", batch=BATCH, lag_budget=BUDGET)
        self.worker = RefreshWorker(self.process, self.publish, self.progress, self.monitor, options, clock_s=lambda: self.now)
        self.progress.assigned(PLACES, self.now)

    def process(self, requests, behind, steps):
        self.now += self.batch_s
        self.stalled += self.progress.stalled(self.now)
        if self.sees is not None:
            self.backlog(self.sees)
        level = "short" if behind else "full"
        self.answers += [(request.user_id, level) for request in requests]
        fields = {"candidates": [], "level": level, "generation": "g", "event_ts": 5, "published_ts": 9}
        sets = [(CandidateSet(user_id=request.user_id, **fields), request.sent_ms) for request in requests]
        return RefreshOutcome(sets, Counter({level: len(sets)}), None)

    async def publish(self, records):
        if self.outages:
            self.outages -= 1
            raise PublishError("a test")
        self.published += records

    def backlog(self, waiting):
        for place in PLACES:
            self.progress.observed(place, end=waiting // len(PLACES), fetched=0, committed=0, now=self.now)

    def handle(self, users, partition=0):
        asyncio.run(self.worker.process(Batch(records(users, partition))))

    def settle(self):
        asyncio.run(self.worker.serve_pending())

    def close(self):
        asyncio.run(self.worker.close())

    def handed_back(self):
        return [msgspec.json.decode(r.value, type=RefreshRequest) for r in self.published if r.topic == "p.refresh"]

    def levels(self):
        return Counter(level for _, level in self.answers)


def test_a_long_list_on_a_slow_machine_is_no_standing_still():
    world = World(batch_s=STALL_S / 2)
    for place in PLACES:
        world.progress.delivered(place, 5, world.now)
        world.progress.observed(place, end=9, fetched=5, committed=0, now=world.now)
    world.handle([f"u{n}" for n in range(20)])
    assert world.now == 10 * STALL_S / 2
    assert world.stalled == []
    assert len(world.progress.stalled(world.now + STALL_S)) == len(PLACES)


def test_many_requests_in_hand_are_a_backlog_also_while_the_ends_of_the_log_are_unknown():
    world = World()
    assert world.progress.lag() == {}
    world.handle([f"u{n}" for n in range(BUDGET + 3)])
    assert [level for _, level in world.answers] == ["short"] * 4 + ["full"] * 4  # as soon as few are left


def test_a_backlog_that_is_seen_meanwhile_shortens_the_rest_of_a_list():
    world = World()
    world.sees = 100
    world.handle(["a", "b", "c", "d"])
    assert world.answers == [("a", "full"), ("b", "full"), ("c", "short"), ("d", "short")]


def test_who_got_a_short_answer_gets_a_full_one_after_the_backlog():
    world = World()
    world.backlog(100)
    world.handle(["a", "b", "c"])
    world.settle()
    assert world.levels() == {"short": 3}
    world.backlog(0)
    world.settle()
    world.settle()
    assert world.levels() == {"short": 3, "full": 3}
    assert world.handed_back() == []


def test_at_the_end_what_is_pending_is_handed_back_once():
    world = World()
    world.backlog(100)
    world.handle(["a", "b", "c"])
    world.close()
    world.close()
    assert world.handed_back() == [asked(user, "c", sent_ms=0) for user in "abc"]
    assert {record.key for record in world.published} == {b"a", b"b", b"c"}
    world.backlog(0)
    world.settle()
    assert world.levels() == {"short": 3}


def test_an_end_without_a_broker_says_who_keeps_a_short_answer(caplog):
    world = World()
    world.backlog(100)
    world.handle(["a", "b", "c"])
    world.outages = 9
    world.close()
    assert "3 users keep a degraded candidate set until their next event" in caplog.text


def test_what_is_pending_goes_along_with_its_partition():
    world = World()
    world.backlog(100)
    world.handle(["a", "b", "c"], partition=1)
    world.handle(["d"], partition=2)
    world.backlog(0)
    world.progress.revoked()
    world.settle()
    assert (world.levels(), world.handed_back()) == ({"short": 4}, [])  # it may come back
    world.progress.assigned([PLACES[0], PLACES[2]], world.now)
    world.outages = 1
    with pytest.raises(PublishError):
        world.settle()
    world.settle()
    assert world.handed_back() == [asked(user, "c", sent_ms=0) for user in "abc"]
    assert world.answers[-1] == ("d", "full")
    assert world.levels() == {"short": 4, "full": 1}


def test_a_worker_left_without_partitions_hands_everything_back():
    world = World()
    world.backlog(100)
    world.handle(["a"])
    world.progress.revoked()
    world.progress.assigned([], world.now)
    world.settle()
    assert world.handed_back() == [asked("a", "c", sent_ms=0)]


def test_an_answer_to_what_was_handed_back_says_nothing_of_latency():
    world = World()
    handed = [Record(0, msgspec.json.encode(asked("a", "c", sent_ms=0)))]
    asyncio.run(world.worker.process(Batch(handed + records("b"))))
    assert world.levels() == {"full": 2}
    assert world.registry.get_sample_value("everlong_event_to_candidate_seconds_count") == 1


def test_what_is_pending_grows_together_and_a_newer_request_outlives_the_answer_to_an_older_one():
    pending = PendingFullRefreshes()
    pending.add(3, asked("a", "x"))
    [taken] = pending.inside({3}, 10)
    pending.add(3, asked("a", "y"))
    pending.remove([taken])
    [left] = pending.inside({3}, 10)
    assert left.categories == ["x", "y"]
    pending.remove([left])
    assert len(pending) == 0

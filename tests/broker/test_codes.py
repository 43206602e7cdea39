"""Item codes are refreshed, rolled back, interrupted and started from a snapshot while events and items flow, and every answer is whole."""

import json
import os
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from itertools import cycle
from threading import Event, Thread

import msgspec
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from features.events import Click
from infra.clock import wall_ms
from infra.local.feed import users_of
from infra.shop import Shop
from models.bundle import save
from models.config import Config
from models.training.train import train
from stream.codes.codes_client import CodesClient
from stream.codes.readers import CodebookReader
from stream.kafka.messages import CandidateSet
from stream.kafka.topics import CANDIDATES, CODEBOOKS
from stream.pipelines.replay import record
from tests.broker.system import running, wait_for

DAY_MS = 86_400_000
ITEMS = 400
SMALL = Config().replace(dim=16, epochs=1, per_user=5, holdout=0.0, subspaces=4)
PACE_S = 0.05

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]


class Live:
    """Clicks and changes of items, all the time, and a hammer that looks at every candidate set that is published."""

    def __init__(self, system, shop, catalogue, users):
        self.system, self._shop, self._catalogue, self._users = system, shop, catalogue, users
        self._stopping = Event()
        self._threads = [Thread(target=self._speak), Thread(target=self._look)]
        self.wrong, self.seen, self.said, self.failure = [], 0, 0, None

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _speak(self):
        with closing(KafkaProducer(**self.system.connection.for_kafka_python(), acks="all")) as producer:
            for number, (user, item) in enumerate(zip(cycle(self._users), cycle(self._catalogue), strict=False)):
                if self._stopping.wait(PACE_S):
                    return
                ts = wall_ms()
                events = [Click(event_id=f"live{number}", user_id=user, item_id=item.item_id, category_id=item.category_id, ts=ts)]
                if number % 5 == 0:
                    events.append(msgspec.structs.replace(item, ts=ts, title=f"{item.title} of {number}"))
                for event in events:
                    topic, key, value, stamp, headers, _ = record(event, ts, self.system.prefix)
                    producer.send(topic, value, key=key, headers=headers, timestamp_ms=stamp)
                self.said += 1

    def _look(self):
        names = {item.item_id for item in self._catalogue}
        topic = self.system.prefix + CANDIDATES.name
        with closing(KafkaConsumer(**self.system.connection.for_kafka_python(), enable_auto_commit=False)) as consumer:
            places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
            consumer.assign(places)
            consumer.seek_to_end()
            while not self._stopping.is_set():
                for records in consumer.poll(timeout_ms=100).values():
                    for found in records:
                        self._judge(msgspec.json.decode(found.value, type=CandidateSet), names)

    def _judge(self, found, names):
        items = [candidate.item for candidate in found.candidates]
        self.seen += 1
        if not items or len(set(items)) != len(items) or not set(items) <= names or found.level not in ("full", "short"):
            self.wrong.append((found.user_id, found.level, len(items)))


class Codes:
    """What a test asks of codes: the command line, the topic, and the workers' metrics."""

    def __init__(self, system, registry):
        self.system, self.registry = system, registry
        settings = {"kafka_bootstrap": system.connection.bootstrap, "topic_prefix": system.prefix}
        self._environment = os.environ | {f"EVERLONG_{key.upper()}": value for key, value in settings.items()}

    def start(self, *arguments):
        command = [sys.executable, "-m", "infra.cli", "codes", *arguments]
        return subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments):
        process = self.start(*arguments, "--json")
        out, error = process.communicate(timeout=90)
        assert process.returncode == 0, (out, error, self.system.logs())
        return json.loads(out)

    def ask(self, *what):
        """As the command does, without the time that a process takes to start."""
        with CodesClient(self.system.connection, self.system.prefix + CODEBOOKS.name) as client:
            *_, last = client.answers(client.request(*what, wall_ms()), 60)
            return last

    def used(self, role):
        return set(self.system.samples_of(role).by("generation", "everlong_codes_generation_info"))

    def wait_used(self, generation, *roles):
        for role in roles or ("refresh", "catalogue"):
            wait_for(lambda role=role: self.used(role) == {generation}, 60, f"{role} with codes {generation}", self.system.logs, 0.02)


@contextmanager
def following(system):
    codebooks = CodebookReader(system.connection, system.prefix + CODEBOOKS.name)
    codebooks.start(Event())
    try:
        yield Codes(system, codebooks.registry)
    finally:
        codebooks.stop()


def test_codes_are_refreshed_while_everything_goes_on(kafka, prefix, tmp_path, record_property):
    now = wall_ms()
    shop = Shop(seed=9, users=40, items=ITEMS, categories=10)
    catalogue, history = shop.catalogue(now - 9 * DAY_MS), shop.history(now - 9 * DAY_MS, now)
    bundle = train(history, catalogue, SMALL, seed=0)
    settings = {
        "bundle": save(bundle, tmp_path / "bundle"),
        "data_dir": tmp_path / "data",
        "codes_automatic": False,
        "codes_measure_s": 1,
        "session_timeout_s": 6,
        "heartbeat_s": 1,
        "top_k_categories": 4,
    }
    with running(kafka, prefix, tmp_path, "catalogue", "ingest", "refresh", **settings) as system, following(system) as codes:
        system.send([*catalogue, *history])
        system.settle()
        own = bundle.codebook.generation
        codes.wait_used(own)
        with Live(system, shop, catalogue, users_of(history)) as live:
            wait_for(lambda: bundle.generation in codes.registry.drifts, 60, "a measurement", system.logs)
            a_cold_refresh(codes, bundle, own, record_property)
            a_rollback(codes, own)
            newer = a_refresh_that_was_killed(codes, own, record_property)
            a_restart_from_the_snapshot(codes, newer)
            seen = live.seen
            wait_for(lambda: live.seen > seen, 60, "answers after all that", system.logs)
        assert live.wrong == []
        assert live.seen > 100
        record_property("sets_checked", live.seen)
        print(f"{live.said} clicks sent, {live.seen} candidate sets checked")


def a_cold_refresh(codes, bundle, own, record_property):
    began = time.monotonic()
    answer = codes.run("refresh", "--how", "cold")
    assert (answer["state"], answer["codebook"] != own) == ("done", True)
    new = answer["codebook"]
    codes.wait_used(new)
    record_property("refresh_s", round(time.monotonic() - began, 2))
    print(f"refreshed after {time.monotonic() - began:.1f} s: {answer['detail']}")
    [status] = codes.run("status")["bundles"]
    assert (status["bundle"], status["current"], status["previous"]) == (bundle.generation, new, own)
    states = {g["codebook"]: (g["state"], g["how"]) for g in status["codebooks"]}
    assert states == {own: ("complete", "bundle"), new: ("current", "cold")}
    assert status["codebooks"][-1]["items"] == ITEMS
    assert 0 < status["codebooks"][-1]["changed"] <= ITEMS
    assert status["drift"]["figures"]["distortion"] >= 0
    assert codes.system.samples_of("catalogue").total("everlong_codes_refreshes_total", how="cold", result="done") == 1


def a_rollback(codes, own):
    assert codes.run("rollback")["codebook"] == own
    codes.wait_used(own)
    assert codes.ask("rollback", "auto", own).state == "refused"


def a_refresh_that_was_killed(codes, own, record_property):
    """The generation stays without `ends`, nobody serves it, and the next refresh succeeds."""
    system = codes.system
    bundle = next(iter(codes.registry.drifts))
    asked = codes.start("refresh", "--how", "warm", "--wait", "40")
    wait_for(lambda: any(g.ends is None for g in codes.registry.of(bundle)), 60, "an announcement", system.logs, 0.01)
    system.workers["catalogue"].kill()
    wait_for(lambda: system.samples_of("refresh").total("everlong_codes_unfinished") == 1, 60, "the gauge", system.logs)
    assert [g.ends for g in codes.registry.of(bundle)][-1] is None
    assert codes.used("refresh") == {own}
    system.workers["catalogue"].start()
    out, error = asked.communicate(timeout=60)
    assert asked.returncode == 4, (out, error)
    assert "ended" in error
    assert codes.used("refresh") == {own}
    answer = codes.ask("refresh", "warm", "")
    assert answer.state == "done"
    codes.wait_used(answer.codebook)
    assert all(g.ends is not None for g in codes.registry.of(bundle))
    return answer.codebook


def a_restart_from_the_snapshot(codes, generation):
    system, worker = codes.system, codes.system.workers["refresh"]
    items = system.samples_of("refresh").total("everlong_index_items")
    assert worker.stop() == 0
    worker.start()
    wait_for(lambda: codes.used("refresh") == {generation}, 60, "the refresh worker again", system.logs)
    assert "starts from its snapshot" in worker.log()
    assert system.samples_of("refresh").total("everlong_index_items") == items

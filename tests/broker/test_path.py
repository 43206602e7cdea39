"""The whole path on real Kafka: a file goes in, and the rows are those computed from it offline, whatever the order."""

import random
import time
from itertools import groupby

import pyarrow.parquet as pq
import pytest

from features import sources
from features.codec import unpack
from features.events import Click, Order, Query
from features.history import offline_rows
from features.outcomes import CandidatesRow
from features.rows import SEQUENCE_CAP
from features.store import Key
from infra.clock import wall_ms
from infra.local.accounts import close
from infra.local.feed import users_of
from infra.shop import Shop
from models.bundle import save
from models.config import Config, PretrainingConfig
from models.training.train import train
from stream.pipelines.replay import replay
from tests.beside import data_file
from tests.broker.system import differing, running, wait_for

DATA = "taobao_users.parquet"
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
USERS, EVENTS = 996, 101_489
SMALL = Config().replace(
    dim=16,
    short=16,
    long=16,
    touched=32,
    subspaces=4,
    epochs=1,
    per_user=2,
    holdout=0.0,
    pool_negatives=128,
    pretraining=PretrainingConfig(epochs=0),
)

pytestmark = [pytest.mark.broker, pytest.mark.data, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def events():
    return list(sources.read(data_file(DATA)))


@pytest.fixture(scope="module")
def bundle(events, tmp_path_factory):
    return save(
        train(events, [], SMALL, seed=0, data=DATA, inferred=sources.Reading(data_file(DATA)).touched()),
        tmp_path_factory.mktemp("trained") / "bundle",
    )


def shuffled_file(folder):
    """The file's rows in random order, as `sources` must not care about."""
    table = pq.read_table(data_file(DATA))
    order = list(range(len(table)))
    random.Random(3).shuffle(order)
    pq.write_table(table.take(order), folder / "shuffled.parquet")
    return folder / "shuffled.parquet"


def shuffled_within_hours(events):
    chance = random.Random(4)
    mixed = []
    for _, hour in groupby(events, key=lambda event: event.ts // HOUR_MS):
        part = list(hour)
        chance.shuffle(part)
        mixed += part
    return mixed


def levels_of(system, users):
    return {unpack(CandidatesRow, row.packed).level for row in system.store.read([Key("user_candidates", (user,)) for user in users])}


def check_rows(system, events, least):
    rows, wrong = differing(system.store, events)
    assert wrong == []
    assert rows >= least
    return rows


def check_accounts(system, standing, **expected):
    """Every record sent is applied, a duplicate or a dead letter; behaviour records came to what is expected."""
    lines = close(standing, system.connection, system.prefix, system.since_ms)
    assert all(line.adds_up for line in lines), lines
    names = ("applied", "duplicate", "dead", "redelivered")
    found = {name: sum(getattr(line, name) for line in lines if line.topic != "items") for name in names}
    assert found == dict.fromkeys(names, 0) | expected


def test_the_rows_of_a_whole_file_are_the_offline_ones_and_sending_it_again_changes_nothing(
    kafka, prefix, events, bundle, tmp_path, record_property
):
    users, took = users_of(events), {}
    assert (len(users), len(events)) == (USERS, EVENTS)
    _, categories = offline_rows(events)
    assert max(row.count for row in categories.values()) <= SEQUENCE_CAP  # past it an old duplicate would be counted again
    with running(kafka, prefix, tmp_path, "catalogue", "ingest", "refresh", bundle=bundle) as system:
        began = time.monotonic()
        system.send_by(lambda publish: replay(sources.Reading(data_file(DATA)), publish, prefix=prefix))
        standing = system.settle()
        took["applied_s"] = time.monotonic() - began
        system.answered(users)
        took["answered_s"] = time.monotonic() - began
        rows = check_rows(system, events, USERS + 20_000)
        check_accounts(system, standing, applied=EVENTS)
        system.send_by(lambda publish: replay(sources.Reading(data_file(DATA)), publish, prefix=prefix))
        check_accounts(system, system.settle(), applied=EVENTS, duplicate=EVENTS)
        check_rows(system, events, rows)
        again = list(sources.read(shuffled_file(tmp_path)))
        assert again != shuffled_within_hours(again)
        system.send(shuffled_within_hours(again))
        check_accounts(system, system.settle(), applied=EVENTS, duplicate=2 * EVENTS)
        check_rows(system, events, rows)
        system.answered(users)
        wait_for(lambda: levels_of(system, users) == {"full"}, 60, "full answers for those that a backlog got short ones", system.logs)
        levels = system.samples().by("level", "everlong_refreshes_total")
        took["all_s"] = time.monotonic() - began
        assert levels["category_popular"] == 0
    record_property("took", took)
    print(f"{rows} rows; { ({name: round(seconds, 1) for name, seconds in took.items()}) }; sets by level {dict(levels)}")


def test_orders_a_whole_file_ahead_of_clicks_give_the_same_rows(kafka, prefix, events, tmp_path):
    with running(kafka, prefix, tmp_path, "ingest") as system:
        for kind in (Order, Click):
            system.send([event for event in events if isinstance(event, kind)])
            standing = system.settle()
        check_accounts(system, standing, applied=EVENTS)
        check_rows(system, events, USERS + 20_000)


@pytest.mark.parametrize("order", [(Query, Click, Order), (Order, Click, Query)], ids=["first", "last"])
def test_queries_wholly_before_or_after_what_they_explain_give_the_same_pairs(kafka, prefix, tmp_path, order):
    now = wall_ms()
    path = tmp_path / "shop.jsonl"
    sources.write(path, Shop(seed=3, users=60, items=300, categories=10).history(now - 20 * DAY_MS, now))
    events = list(sources.read(path))
    _, categories = offline_rows(events)
    pairs = [event.pair for row in categories.values() for event in row.events if event.pair]
    assert len(pairs) > 100
    assert any(pair.named for pair in pairs)
    with running(kafka, prefix, tmp_path, "ingest") as system:
        for kind in order:
            system.send([event for event in events if isinstance(event, kind)])
            standing = system.settle()
        check_accounts(system, standing, applied=len(events))
        check_rows(system, events, 100)

"""Users whom a backlog got a short answer get a full one, also when the worker that owes it is stopped before."""

from collections import Counter

import pytest

from features.codec import unpack
from features.outcomes import CandidatesRow
from features.store import Key
from infra.clock import wall_ms
from infra.local.feed import users_of
from infra.shop import Shop
from models.bundle import save
from models.config import Config
from models.training.train import train
from tests.broker.system import differing, running, wait_for

DAY_MS = 86_400_000
SMALL = Config().replace(dim=16, epochs=1, per_user=2, holdout=0.0, subspaces=4)
SLOW = {"refresh_batch": 1, "refresh_lag_budget": 1}  # many batches a list, all but the last of them behind

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


def test_an_orderly_stop_in_a_backlog_leaves_nobody_with_a_short_answer(kafka, prefix, tmp_path):
    now = wall_ms()
    shop = Shop(seed=9, users=200, items=300, categories=10)
    catalogue, history = shop.catalogue(now - 5 * DAY_MS), shop.history(now - 5 * DAY_MS, now)
    users, bundle = users_of(history), save(train(history, catalogue, SMALL, seed=0), tmp_path / "bundle")

    def levels():
        rows = system.store.read([Key("user_candidates", (user,)) for user in users])
        return Counter(unpack(CandidatesRow, row.packed).level if row else None for row in rows)

    with running(kafka, prefix, tmp_path, "catalogue", "ingest", "refresh", bundle=bundle, **SLOW) as system:
        worker = system.workers["refresh"]
        system.send(catalogue)
        wait_for(lambda: system.samples().total("everlong_index_items") == len(catalogue), 60, "the index", system.logs)
        assert worker.stop() == 0
        system.send(history)
        wait_for(lambda: not differing(system.store, history)[1], 60, "the features", system.logs)
        worker.start()
        wait_for(lambda: levels()["short"] > 10, 60, "short answers", system.logs, 0.01)
        assert worker.stop() == 0, worker.log()
        found = levels()
        assert found["short"] > 10
        print(f"sets after the stop: {dict(found)}")
        worker.start()
        wait_for(lambda: levels() == {"full": len(users)}, 60, "full answers", system.logs)

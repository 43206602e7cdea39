"""What is trained foretells held-out baskets clearly better than popularity: on the simulated shop, and on real events."""

import os
from pathlib import Path

import pytest

from features import sources
from features.event_time import DAY_MS
from models.config import Config
from models.train import train
from stream.shop import Shop

DATA = Path(__file__).parents[3] / "shared" / "data"
TAOBAO_LAST_DAY_MS = 1_512_230_400_000  # 2017-12-03 00:00 in China


def assert_beats_popularity(metrics):
    cascade, popular, theirs = metrics["cascade"], metrics["most popular"], metrics["popular in categories"]
    assert cascade["recall@50_low"] > max(popular["recall@50_high"], theirs["recall@50_high"])
    assert cascade["hr@50_low"] > max(popular["hr@50_high"], theirs["hr@50_high"])
    assert metrics["gated"]["hit@8"] > metrics["categories by count"]["hit@8"]


def test_on_the_simulated_shop():
    now = 1_760_000_000_000
    shop = Shop(seed=3, users=120, items=800, categories=30, events_per_day=2.5)
    bundle = train(shop.history(now - 50 * DAY_MS, now), shop.catalogue(now), Config(epochs=3, per_user=25, test_per_user=4), seed=3)
    assert_beats_popularity(bundle.manifest.metrics)


@pytest.mark.data
@pytest.mark.timeout(900)
def test_on_the_last_day_of_taobao_users():
    path = DATA / "taobao_users.parquet"
    if not path.exists():
        if os.environ.get("REQUIRE_SHARED") == "1":
            pytest.fail(f"{path} is not there")
        pytest.skip(f"{path} is not there: put the data sets beside the repository")
    events = list(sources.read(path))
    config = Config(epochs=1, per_user=25, cut_ms=TAOBAO_LAST_DAY_MS, test_per_user=1)
    bundle = train(events, sources.read_items(path), config, seed=0, data=path.name)
    assert_beats_popularity(bundle.manifest.metrics)

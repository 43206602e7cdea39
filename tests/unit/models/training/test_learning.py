"""A trained network predicts held-out baskets clearly better than popularity: on the simulated shop, and on real events."""

import pytest
import torch

from features import sources
from features.event_time import DAY_MS
from infra.shop import Shop
from models.config import Config
from models.training.train import train
from tests.beside import data_file
from tests.tiny_bundle import CONFIG, NO_PRETRAINING, shop

TAOBAO_LAST_DAY_MS = 1_512_230_400_000  # 2017-12-03 00:00 in China


def assert_beats_popularity(metrics):
    cascade, popular, theirs = metrics["cascade"], metrics["most popular"], metrics["popular in categories"]
    assert cascade["recall@50_low"] > max(popular["recall@50_high"], theirs["recall@50_high"])
    assert cascade["hr@50_low"] > max(popular["hr@50_high"], theirs["hr@50_high"])
    assert metrics["gated"]["hit@8"] > metrics["categories by count"]["hit@8"]


def test_on_the_simulated_shop():
    now = 1_760_000_000_000
    simulated = Shop(seed=3, users=120, items=800, categories=30, events_per_day=2.5)
    events, catalogue = simulated.history(now - 50 * DAY_MS, now), simulated.catalogue(now)
    bundle = train(events, catalogue, Config().replace(epochs=3, per_user=25, test_per_user=4), seed=3)
    assert_beats_popularity(bundle.manifest.metrics)


def test_the_network_learns_its_own_objectives_first_and_the_towers_go_on_from_there():
    events, catalogue = shop(users=10, events=20)
    phases, units = [], []
    for pretraining in (CONFIG.training.pretraining, NO_PRETRAINING):
        told = []
        config = CONFIG.replace(epochs=1, holdout=0.0, learning_rate=0.0, pretraining=pretraining)
        units.append(train(events, catalogue, config, 0, told.append).network.psu.state_dict())
        phases.append(list(dict.fromkeys(now.phase for now in told if now.examples)))
    assert phases == [["pretraining", "training"], ["training"]]
    assert not any(torch.equal(units[0][name], units[1][name]) for name in ("words.weight", "gate", "id.weight"))


@pytest.mark.data
@pytest.mark.timeout(900)
def test_on_the_last_day_of_taobao_users():
    path = data_file("taobao_users.parquet")
    events = list(sources.read(path))
    config = Config().replace(epochs=1, per_user=10, cut_ms=TAOBAO_LAST_DAY_MS, test_per_user=1)
    bundle = train(events, [], config, seed=0, data=path.name, inferred=sources.Reading(path).touched())
    assert_beats_popularity(bundle.manifest.metrics)

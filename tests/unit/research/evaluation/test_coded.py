"""Codes beside vectors, over real histories: all is found where codes are exact, less where they are not."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from features.history import deeds
from models.training.train import train
from research.evaluation.coded import code_recall
from tests.tiny_bundle import CONFIG, shop


@pytest.fixture(scope="module")
def trained():
    events, catalogue = shop(users=8, events=60)
    return train(events, catalogue, CONFIG.replace(epochs=1, holdout=0.0), seed=0), deeds(events)


def test_codes_of_a_small_catalogue_lose_nothing(trained):
    bundle, known = trained
    found = code_recall(bundle, known, list(known))
    assert (found.histories, found.events, found.kept) == (8, 59, 32)
    assert found.alone > 0.99
    assert found.reranked == 1
    assert found.weight == pytest.approx(found.most, abs=1e-3)


def test_codes_that_stand_for_other_items_find_less_and_the_rerank_finds_it_again(trained):
    bundle, known = trained
    shuffled = np.random.default_rng(0).permutation(bundle.items.codes)
    found = code_recall(replace(bundle, items=replace(bundle.items, codes=shuffled)), known, list(known))
    assert 0.3 < found.alone < 0.9  # 32 of 59 by chance are 0.54
    assert found.reranked == 1  # histories are shorter than what is compared by vectors


def test_short_histories_and_unknown_users_are_not_asked(trained):
    bundle, known = trained
    short = {user: deed._replace(events=list(islice(deed.events, 33))) for user, deed in known.items()}
    assert code_recall(bundle, short, list(short)) is None
    assert code_recall(bundle, known, ["nobody"]) is None

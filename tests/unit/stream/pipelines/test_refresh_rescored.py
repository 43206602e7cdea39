"""Refresh with a bundle that holds a re-scorer: its order, in no more round trips, and only where it is asked for."""

from copy import deepcopy
from dataclasses import replace

import msgspec
import pytest
import torch

from infra.settings import Settings
from models.rescoring.model import Rescorer
from models.serving.recommender import Recommender
from stream.pipelines.refresh import Limits, Serving
from tests.refresh_world import NOW, Failing, System, click, serving
from tests.tiny_bundle import quickly_trained


def rescoring():
    """The tiny bundle with a re-scorer of random weights."""
    bundle = quickly_trained(1)
    config = bundle.manifest.config.replace(rescore="attention", rescore_categories=3)
    torch.manual_seed(5)
    network = deepcopy(bundle.network)
    network.rescorer = Rescorer(config.network)
    changed = replace(bundle, network=network, manifest=msgspec.structs.replace(bundle.manifest, config=config))
    return Serving(Recommender(changed), changed.index())


@pytest.fixture
def system():
    return System(Failing(), candidates=20)


def happened(system):
    return system.happens(*[click(n, f"c{n % 5}", ts=NOW - 10_000 * (30 - n)) for n in range(24)])


def answers(system, behind=False):
    """The set without a re-scorer and the one with it, and the calls of the store that each took."""
    found = []
    for serves in (serving(), rescoring()):
        system.serving, asked, before = serves, happened(system), system.store.calls
        found.append((system.answer(asked, behind), system.store.calls - before))
    return found


def test_candidates_come_in_the_order_of_the_rescorer_with_its_scores_and_their_own_paths(system):
    (plain, _), (ordered, _) = answers(system)
    scores = [candidate.score for candidate in ordered.candidates]
    assert scores == sorted(scores, reverse=True) != [candidate.score for candidate in plain.candidates]
    assert len(ordered.candidates) == len(plain.candidates) == 20
    assert (ordered.level, {c.path for c in ordered.candidates} <= {"category", "short", "repeat"}) == ("full", True)


def test_they_are_the_best_of_more_than_are_wanted(system):
    _, (ordered, _) = answers(system)
    many = System(system.store, candidates=30, rescore=False)
    merged = {candidate.item: candidate.path for candidate in many.answer(happened(system)).candidates}
    assert {candidate.item: candidate.path for candidate in ordered.candidates}.items() <= merged.items()


def test_the_rows_of_the_rescorer_cost_no_round_trip_of_their_own(system):
    assert [calls for _, calls in answers(system)] == [3, 3]  # users; rows of categories; the answer


@pytest.mark.parametrize(("behind", "rescore"), [(True, True), (False, False)])
def test_nothing_is_rescored_where_refresh_is_behind_or_the_setting_says_no(behind, rescore):
    (plain, _), (same, _) = answers(System(Failing(), candidates=20, rescore=rescore), behind)
    assert same.candidates == plain.candidates


def test_a_rescorer_that_is_not_finite_counts_as_a_lost_model(system):
    system.serving = rescoring()
    with torch.no_grad():
        system.serving.recommender._network.rescorer.repeats[0].bias.fill_(float("nan"))
    outcome = system.refresh.process(happened(system))
    assert "not finite" in outcome.failure
    assert outcome.levels == {"category_popular": 1}


def test_the_setting_is_that_of_the_pipeline():
    assert Settings().rescore == Limits().rescore is True

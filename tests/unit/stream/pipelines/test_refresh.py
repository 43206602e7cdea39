"""The refresh pipeline on a real store and a real, tiny bundle: the ladder, what is computed anew, and what never comes back."""

import dataclasses
from copy import deepcopy

import msgspec
import numpy as np
import pytest
import torch

from features.codec import pack
from features.errors import StoreUnavailableError
from features.events import Query
from features.outcomes import CandidatesRow, InterestsRow
from features.rows import UserRow
from features.store import Key, LogPosition, Stored
from models.config.retrieval import Shares
from models.index import Delete, Upsert
from models.serving.recommender import Recommender
from models.serving.retriever import Serving
from stream.pipelines.refresh import coalesce
from tests.refresh_world import CATEGORIES, NOW, Failing, System, click, lose_model, order, request, serving
from tests.tiny_bundle import quickly_trained


@pytest.fixture
def system():
    return System()


def test_a_full_answer_is_written_and_published_alike(system):
    [asked] = system.happens(click(1))
    [(found, sent_ms)] = system.process([asked]).sets
    row = system.row(CandidatesRow, "user_candidates")
    assert [(c.item, c.score, c.category, c.path) for c in row.candidates] == [
        (c.item, c.score, c.category, c.path) for c in found.candidates
    ]
    told = (row.level, row.generation, row.event_ts, row.published_ts)
    assert told == ("full", system.serving.recommender.generation, NOW - 999, NOW + 7)
    assert told == (found.level, found.generation, found.event_ts, found.published_ts)
    assert (found.user_id, sent_ms) == ("u", asked.sent_ms)
    for view in ("user_candidates", "user_interests"):
        [stored] = system.store.read([Key(view, ("u",))])
        assert (stored.log_position, stored.ts_ms) == (LogPosition(0, 1), NOW - 999)


def test_every_candidate_is_of_its_category_and_says_which_path_found_it():
    system = System(candidates=72)  # the whole catalogue: among the first few the short list may find nothing first
    found = system.answer(system.happens(click(1), click(2, "c3"))[-1:])
    catalogue = dict(zip(quickly_trained(1).items.ids, quickly_trained(1).items.categories, strict=True))
    assert len(found.candidates) == len({c.item for c in found.candidates}) == 72
    assert all(catalogue[c.item] == c.category for c in found.candidates)
    assert {c.path for c in found.candidates} == {"category", "short", "repeat"}
    short = system.answer([request("u")], behind=True)
    assert {c.path for c in short.candidates} == {"short", "repeat"}
    scores = [c.score for c in short.candidates if c.path == "short"]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("behind", [False, True])
def test_a_users_own_items_stand_at_the_top_in_the_order_of_their_list(behind):
    system = System(candidates=30)
    often = [click(n, item="i1-3") for n in (1, 2, 3)]
    asked = system.happens(*often, click(4, "c3", item="i3-5"), click(5, "c2", item="strange"), click(6, "c2", item="i2-7"))[-1:]
    found = system.answer(asked, behind).candidates
    own = [c for c in found if c.path == "repeat"]
    assert [c.item for c in own] == ["i1-3", "i2-7", "i3-5"]  # the one clicked most, then the newest; one is in no index
    assert own == sorted(own, key=lambda c: -c.score)
    assert {"i1-3", "i2-7", "i3-5"} <= {c.item for c in found[:6]}
    without = System(system.store, candidates=30, shares={"repeat": 0.0}).answer(asked, behind).candidates
    assert "repeat" not in {c.path for c in without}


@pytest.mark.parametrize("behind", [False, True])
def test_a_search_is_answered_until_an_event_follows(behind):
    system = System(candidates=30)
    query = Query(event_id="q", user_id="u", query_id="q", text="green thing", ts=NOW - 10)
    system.happens(click(1))
    asked = system.happens(query)
    paths = [c.path for c in system.answer(asked, behind).candidates]
    assert paths.count("query") >= 10
    without = System(system.store, candidates=30, shares={"query": 0.0}).answer(asked, behind).candidates
    assert "query" not in {c.path for c in without}
    after = system.answer(system.happens(click(1001, "c3")), behind).candidates
    assert "query" not in {c.path for c in after}


@pytest.mark.parametrize("behind", [False, True])
def test_the_bundles_shares_serve_unless_others_are_set(behind):
    system = System(candidates=10)
    asked = system.happens(*(click(n, f"c{n % 3}") for n in range(12)))[-1:]
    bundle = system.serving.recommender.bundle
    for share, least, most in ((0.0, 0, 0), (0.5, 4, 6), (0.95, 8, 10)):
        config = bundle.manifest.config.replace(shares=Shares(repeat=share, short=0.95))
        manifest = msgspec.structs.replace(bundle.manifest, config=config)
        changed = Recommender(dataclasses.replace(bundle, manifest=manifest))
        system.serving = Serving(changed, system.serving.index)
        assert least <= [c.path for c in system.answer(asked, behind).candidates].count("repeat") <= most
    over = System(system.store, candidates=10, shares={"repeat": 0.0})
    over.serving = system.serving
    assert "repeat" not in {c.path for c in over.answer(asked, behind).candidates}


def test_the_ladder_short_only_when_behind(system):
    outcome = system.process(system.happens(click(1)), behind=True)
    assert (outcome.levels, outcome.failure, system.computed) == ({"short": 1}, None, [])
    assert system.row(InterestsRow, "user_interests") is None
    assert len(outcome.sets[0][0].candidates) == 72


@pytest.mark.parametrize("behind", [False, True])
def test_the_ladder_popular_in_the_users_categories_when_the_model_is_lost(system, behind):
    asked = [*system.happens(click(1, "c2", "one")), request("nobody")]
    lose_model(system)
    outcome = system.process(asked, behind)
    assert "RuntimeError" in outcome.failure
    one, nobody = (found for found, _ in outcome.sets)
    assert (one.level, nobody.level) == ("category_popular", "popular")
    first = [c for c in one.candidates if c.path != "popular"]
    assert first == one.candidates[: len(first)]
    assert {c.path for c in first} == {"repeat", "category_popular"}
    assert {c.category for c in first} == {"c2"}
    assert {c.path for c in one.candidates[len(first) :]} == {c.path for c in nobody.candidates} == {"popular"}


@pytest.mark.parametrize("behind", [False, True])
def test_without_a_model_the_users_own_items_come_first_while_they_can_be_had(system, behind):
    asked = system.happens(click(3, "c2"), click(15, "c2"), click(7, "c2"), click(5, "c9", item="i3-5"), order("i4-1"))[-1:]
    lose_model(system)
    own = [c.item for c in system.answer(asked, behind).candidates if c.path == "repeat"]
    assert own == ["i2-3", "i2-7", "i3-5"]  # the one clicked most, then the newest; what was bought is left out
    system.serving.index.apply([Delete("i2-3")])
    assert [c.item for c in system.answer(asked, behind).candidates if c.path == "repeat"] == ["i2-7", "i3-5"]
    without = System(system.store, shares={"repeat": 0.0})
    lose_model(without)
    assert "repeat" not in {c.path for c in without.answer(asked, behind).candidates}


@pytest.mark.parametrize("behind", [False, True])
def test_vectors_that_are_not_finite_count_as_a_lost_model(system, behind):
    asked = system.happens(click(1))
    broken = deepcopy(system.serving.recommender.bundle.network)
    with torch.no_grad():
        for weights in broken.parameters():
            weights.fill_(float("nan"))
    system.serving.recommender._network = broken
    outcome = system.process(asked, behind)
    assert "not finite" in outcome.failure
    assert outcome.levels == {"category_popular": 1}


@pytest.mark.parametrize("behind", [False, True])
def test_the_ladder_popular_for_a_user_of_whom_nothing_is_known(system, behind):
    outcome = system.process([request("nobody", "c1")], behind)
    [(found, _)] = outcome.sets
    assert (found.level, found.event_ts, outcome.failure) == ("popular", 5, None)
    assert found.candidates
    [stored] = system.store.read([Key("user_candidates", ("nobody",))])
    assert stored.log_position == LogPosition(0, 1)


@pytest.mark.parametrize("behind", [False, True])
def test_items_and_categories_that_no_model_knows_are_answered_by_it_all_the_same(system, behind):
    found = system.answer(system.happens(click(1, "c99", item="strange"))[-1:], behind)
    assert found.level == ("short" if behind else "full")
    assert len(found.candidates) == 72


def test_a_user_who_only_searched_has_a_full_answer(system):
    query = Query(event_id="q", user_id="u", query_id="q", text="red thing", ts=NOW - 3)
    found = system.answer(system.happens(query))
    assert (found.level, found.event_ts) == ("full", NOW - 3)


def test_coalescing_takes_the_newest_and_all_categories():
    first = request("a", "c2", "c1", log_position=(0, 5, 1, 0), event_ts=9, sent_ms=1)
    other = request("b")
    second = request("a", "c3", "c1", log_position=(0, 6, 1, 0), event_ts=4, sent_ms=3)
    expected = request("a", "c1", "c2", "c3", log_position=(0, 6, 1, 0), event_ts=9, sent_ms=3)
    assert coalesce([first, other, second]) == coalesce([second, other, first]) == [expected, other]
    assert coalesce([]) == []


def test_only_touched_categories_are_computed_anew(system):
    system.process(system.happens(click(1), click(2, "c3")))
    assert {*system.computed} == CATEGORIES
    before = system.interests()
    assert before.keys() == CATEGORIES | {""}
    system.process(system.happens(click(5, "c3")))
    after = system.interests()
    assert system.computed == ["c3"]
    assert [c for c in sorted(CATEGORIES) if before[c].tobytes() != after[c].tobytes()] == ["c3"]
    assert before[""].tobytes() != after[""].tobytes()


def test_another_generation_computes_all_anew(system):
    system.process(system.happens(click(1)))
    before = system.interests()
    system.serving = serving(2)
    outcome = system.process([request("u", "c1")])
    assert {*system.computed} == CATEGORIES
    assert all(before[c].tobytes() != vector.tobytes() for c, vector in system.interests().items())
    assert system.row(InterestsRow, "user_interests").generation == outcome.sets[0][0].generation == system.serving.recommender.generation


@pytest.mark.parametrize("lost", [False, True])
def test_a_category_touched_while_only_a_short_answer_was_given_is_not_reused_later(system, lost):
    system.process(system.happens(click(1), click(2, "c3")))
    touched = system.happens(click(5, "c3"))
    if lost:
        whole, system.serving = system.serving, serving()
        lose_model(system)
        assert system.answer(touched).level == "category_popular"
        system.serving = whole
    else:
        assert system.answer(touched, behind=True).level == "short"
    assert system.interests().keys() == CATEGORIES - {"c3"} | {""}
    system.process(system.happens(click(6, "c1")))
    assert {*system.computed} == {"c1", "c3"}
    later = system.interests()["c3"]
    system.process([request("u", *CATEGORIES)])
    np.testing.assert_allclose(later, system.interests()["c3"], atol=1e-5)


@pytest.mark.parametrize("level", ["full", "short", "category_popular"])
@pytest.mark.parametrize("leave_out", [True, False])
def test_what_was_bought_comes_back_only_if_asked_for(level, leave_out):
    system = System(exclude_bought=leave_out)
    asked = system.happens(click(1), order("i1-3", "i2-4"))
    if level == "category_popular":
        lose_model(system)
    bought = {"i1-3", "i2-4"}
    if level == "category_popular":  # popular lists know what was wanted, not the whole catalogue
        bought &= {item for item, _, _ in system.serving.popular.overall}
        assert bought
    found = system.answer(asked[-1:], level == "short")
    assert found.level == level
    assert {c.item for c in found.candidates} & bought == (set() if leave_out else bought)


@pytest.mark.parametrize("level", ["full", "short", "category_popular"])
def test_a_deleted_item_never_comes_back(system, level):
    asked = system.happens(click(1), click(2, "c3"))[-1:]
    gone = {item for item, _, _ in system.serving.popular.overall[:5]} | {"i1-1"}
    system.serving.index.apply([Delete(item) for item in gone])
    if level == "category_popular":
        lose_model(system)
    found = system.answer(asked, level == "short")
    assert found.level == level
    assert found.candidates
    assert not {c.item for c in found.candidates} & gone


@pytest.mark.parametrize("only_available", [True, False])
@pytest.mark.parametrize("level", ["full", "short", "category_popular"])
def test_an_item_that_cannot_be_had_comes_back_only_if_asked_for(level, only_available):
    system = System(only_available=only_available)
    asked = system.happens(click(1), click(2, "c3"))[-1:]
    index, before = system.serving.index, system.answer(asked).candidates
    gone = {item for item, _, _ in system.serving.popular.overall[:5]} | {candidate.item for candidate in before[:5]}
    now = index.look()
    numbers = now.numbers(sorted(gone))
    rows = zip(sorted(gone), now.category_numbers(numbers).tolist(), now.vectors(numbers), now.codes(numbers), strict=True)
    index.apply([Upsert(item, now.category_name(own), vector, code, index.generation, available=False) for item, own, vector, code in rows])
    if level == "category_popular":
        lose_model(system)
    found = system.answer(asked, level == "short")
    assert found.level == level
    assert found.candidates
    assert bool({c.item for c in found.candidates} & gone) != only_available


def test_an_empty_catalogue_gives_an_empty_answer_and_no_error(system):
    system.serving.index.apply([Delete(item) for item in quickly_trained(1).items.ids])
    found = system.answer(system.happens(click(1)))
    assert (found.candidates, found.level) == ([], "popular")


def test_a_set_that_the_store_refuses_is_not_published(system):
    asked = [*system.happens(click(1, user="a")), *system.happens(click(2, user="b"))]
    newer = Stored(pack(CandidatesRow(level="newer")), LogPosition(0, 99), NOW)
    system.store.write([(Key("user_candidates", ("a",)), newer)])
    outcome = system.process(asked)
    assert [found.user_id for found, _ in outcome.sets] == ["b"]
    assert outcome.levels == {"full": 1}
    assert system.row(CandidatesRow, "user_candidates", "a").level == "newer"


@pytest.mark.parametrize("call", [1, 2, 3])
def test_the_same_batch_works_after_the_store_failed_at_any_call(call):
    system = System(Failing())
    asked = system.happens(click(1), click(2, "c3"))
    system.store.at = {system.store.calls + call}
    with pytest.raises(StoreUnavailableError):
        system.process(asked)
    outcome = system.process(asked)
    assert (outcome.levels, len(system.computed)) == ({"full": 1}, 6)


def test_the_answer_is_to_the_newest_event_of_the_row_not_only_of_the_request(system):
    older, _ = system.happens(click(1), click(2, "c3"))
    found = system.answer([older])
    assert found.event_ts == NOW - 998
    assert system.store.read([Key("user_candidates", ("u",))])[0].log_position == LogPosition(0, 2)


@pytest.mark.parametrize("behind", [False, True])
def test_users_get_the_same_alone_and_together(behind):
    one, all_ = System(), System()
    events = [click(n, f"c{n % (1 + n % 5)}", f"u{n % 4}") for n in range(60)]
    alone = {found.user_id: found for asked in coalesce(one.happens(*events)) for found in [one.answer([asked], behind)]}
    outcome = all_.process([*all_.happens(*events), request("nobody")], behind)
    assert [found.user_id for found, _ in outcome.sets] == ["u0", "u1", "u2", "u3", "nobody"]
    for found, _ in outcome.sets[:-1]:
        scores = {c.item: c.score for c in alone[found.user_id].candidates}
        assert found.level == alone[found.user_id].level
        assert {c.item for c in found.candidates} == scores.keys()
        same = [abs(c.score - scores[c.item]) < 1e-4 for c in found.candidates]
        assert sum(same) >= 0.95 * len(same)  # equal places may change hands, and with them the finder's score
    assert all_.row(UserRow, "user", "u0") == one.row(UserRow, "user", "u0")


def test_no_requests_are_no_work(system):
    outcome = system.process([])
    assert (outcome.sets, outcome.levels, outcome.failure) == ([], {}, None)

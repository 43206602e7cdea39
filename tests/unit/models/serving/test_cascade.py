import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.outcomes import Candidate
from models.bundle.popular import Popular
from models.codes.codebook import Codebook
from models.config.retrieval import USUAL, Shares
from models.index import Delete, Found, ItemIndex, Upsert, Where
from models.serving import cascade
from models.serving.popular import popular_candidates
from models.serving.quotas import DEPTHS, Extra, Lists, choose, weights
from tests.references import merge as reference_merge
from tests.references import search as reference_search

ITEMS = [f"i{number * 7 % 30:02d}" for number in range(30)]  # their order by id is not that by number
HOME = {item: f"c{number % 4}" for number, item in enumerate(ITEMS)}
VECTORS = np.random.default_rng(0).integers(-2, 3, (30, 4)).astype(np.float32)  # whole numbers: equal scores abound


def retrieve(view, long, chosen, short, out, limit, where=None, extras=(), shares=USUAL):
    return cascade.merged(view, cascade.search(view, long, chosen, short, out, limit, where), extras, shares)


def retrieve_short(view, short, out, limit, where=None, extras=()):
    return cascade.merged(view, cascade.search_short(view, short, out, limit, where), extras)


chances = st.sampled_from([0.0, 0.1, 0.4, 0.4, 1.0])
excludes = st.sets(st.sampled_from(ITEMS))


@st.composite
def batches(draw):
    """For each user of a batch: categories with probabilities and hits, hits of the short list. Any list may hold any item."""
    hits = st.lists(st.integers(0, 29), unique=True, max_size=12)
    chosen = st.lists(st.tuples(st.sampled_from(["c0", "c1", "c2", "c3"]), chances, hits), unique_by=lambda found: found[0])
    return draw(st.lists(st.tuples(chosen, hits), max_size=4))


def merged(batch, limit):
    """The items chosen for each user of a batch with the number of the list that found them, by the fast way."""
    rows = [(user, hits) for user, (chosen, short) in enumerate(batch) for hits in [*(found[2] for found in chosen), short]]
    numbers = np.full((len(rows), 12), -1, np.int32)
    for row, (_, hits) in enumerate(rows):
        numbers[row, : len(hits)] = hits
    weight = [part for chosen, _ in batch for part in [*weights([chance for _, chance, _ in chosen]), USUAL.short]]
    lists = Lists(numbers, np.array([user for user, _ in rows], np.int64), np.array(weight))
    places = choose(lists, len(batch), limit, lambda found: [ITEMS[number] for number in found.tolist()])
    start = np.searchsorted(lists.user, np.arange(len(batch)))
    return [[(ITEMS[numbers.ravel()[at]], int(at // 12 - start[user])) for at in row if at >= 0] for user, row in enumerate(places)]


def slowly(chosen, short, limit):
    """The same for one user by the reference."""
    lists = [(category, chance, [(ITEMS[n], -float(rank)) for rank, n in enumerate(hits)]) for category, chance, hits in chosen]
    number_of = {category: number for number, (category, _, _) in enumerate(lists)}
    found = reference_merge.merge(lists, [(ITEMS[n], -float(rank), "") for rank, n in enumerate(short)], limit)
    return [(c.item, number_of[c.category] if c.path == "category" else len(lists)) for c in found]


@settings(max_examples=100, deadline=None)
@given(batches(), st.integers(0, 40))
def test_a_merge_of_a_batch_is_the_merge_of_each_user_by_the_reference(batch, limit):
    batch = [(sorted(chosen, key=lambda found: (-found[1], found[0])), short) for chosen, short in batch]
    found = merged(batch, limit)
    assert found == [slowly(chosen, short, limit) for chosen, short in batch]
    for user, (chosen, short) in zip(found, batch, strict=True):
        every = {ITEMS[n] for hits in [short, *(own for _, _, own in chosen)] for n in hits}
        assert len({item for item, _ in user}) == len(user) == min(limit, len(every))
    assert [user[:limit] for user in merged(batch, limit + 5)] == found  # any first k has the quotas


def long_list(first, n):
    return [*range(first, first + n)]


def quotas(lists, limit):
    """How many each list gives: of one user with (probability, hits), the short list last and without a probability."""
    numbers = np.full((len(lists), 300), -1, np.int32)
    for row, (_, hits) in enumerate(lists):
        numbers[row, : len(hits)] = hits
    weight = [*weights([chance for chance, _ in lists[:-1]]), USUAL.short]
    found = Lists(numbers, np.zeros(len(lists), np.int64), np.array(weight))
    [places] = choose(found, 1, limit, lambda chosen: [f"{number:04d}" for number in chosen.tolist()])
    return np.bincount(places[places >= 0] // 300, minlength=len(lists)).tolist()


def test_quotas_follow_probability_with_a_floor_and_a_share_for_the_short_list():
    lists = [(0.9, long_list(0, 300)), (0.1, long_list(300, 300)), (0.0, long_list(600, 300)), (None, long_list(900, 300))]
    shares = quotas(lists, 200)
    # the short list has 0.2 of 200; of 160 a quarter evenly, 13.3 each, and three quarters by probability
    assert shares == [pytest.approx(121, abs=1), pytest.approx(25, abs=1), pytest.approx(13, abs=1), 40]
    assert quotas(lists, 20)[3] == 4


def test_places_that_a_list_leaves_go_to_the_others():
    assert quotas([(1.0, long_list(0, 3)), (None, long_list(100, 100))], 50) == [3, 47]
    assert quotas([(1.0, long_list(0, 60)), (None, [])], 50) == [50, 0]
    assert quotas([(1.0, []), (None, [])], 50) == [0, 0]
    assert quotas([(None, long_list(0, 60))], 50) == [50]


@pytest.mark.parametrize("short", [1, 5, 100, 300])
def test_lists_that_hold_the_same_items_are_looked_at_as_deep_as_it_takes(short):
    same = [(0.5, long_list(0, 300))] + [(0.5 / 7, long_list(0, 300))] * 7
    assert sum(quotas([*same, (None, long_list(200, short))], 200)) == 200
    assert max(quotas([*same, (None, long_list(200, short))], 200)) > 90 * DEPTHS[0]


def test_an_item_of_several_lists_has_its_best_place_and_its_finders_number():
    assert merged([([("c0", 1.0, [1, 2])], [2, 1])], 5) == [[(ITEMS[1], 0), (ITEMS[2], 0)]]
    late = [("c0", 0.9, long_list(0, 12)), ("c1", 0.1, [12, 13, 14])]
    [found] = merged([(late, [14])], 16)
    assert (ITEMS[14], 2) in found


def test_weights_add_up_to_their_share():
    assert weights([]) == []
    assert sum(weights([0.7, 0.1, 0.0])) == pytest.approx(0.8)
    assert weights([0.0, 0.0]) == [0.4, 0.4]
    assert weights([3.0, 1.0], 1.0, 0.0) == [0.75, 0.25]
    assert weights([1.0, -1.0], 1.0, 0.0)[1] > 0


def whole_index():
    codebook = Codebook.train(VECTORS, 2, seed=0)
    return ItemIndex(codebook, VECTORS, ITEMS, [HOME[item] for item in ITEMS])


def extra(index, path, share, lists, limit):
    """A list beside the searches, of items for each user."""
    found = Found.nothing(len(lists), max(limit, 0))
    for row, items in enumerate(lists):
        kept = items[: max(limit, 0)]
        found.numbers[row, : len(kept)] = index.look().numbers(kept)
        found.scores[row, : len(kept)] = range(len(kept))  # the order is as given: scores of lists are never compared
    return Extra(path, found, share)


more_shares = st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.9]), max_size=2)
search_shares = st.builds(Shares, short=st.sampled_from([0.0, 0.2, 0.95]), even=st.sampled_from([0.0, 0.25, 1.0]))
beside = st.lists(st.sampled_from(ITEMS), unique=True, max_size=12)


@st.composite
def users(draw):
    chosen = draw(st.lists(st.tuples(st.sampled_from(["c0", "c1", "c2", "c3", "new"]), chances), unique_by=lambda pair: pair[0]))
    vector = st.lists(st.integers(-2, 2).map(float), min_size=4, max_size=4)
    long = np.array([draw(vector) for _ in chosen], np.float32).reshape(-1, 4)
    return chosen, long, draw(vector), draw(excludes), [draw(beside), draw(beside)]


@settings(max_examples=50, deadline=None)
@given(st.lists(users(), max_size=4), st.integers(0, 40), st.sets(st.sampled_from(ITEMS)), more_shares, search_shares)
def test_retrieval_of_a_batch_is_that_of_each_user_by_the_references(batch, limit, deleted, shares, searches):
    index = whole_index()
    index.apply([Delete(item) for item in deleted])
    short = np.array([user[2] for user in batch], np.float32).reshape(-1, 4)
    more = [[[item for item in user[4][n] if item not in user[3] | deleted] for user in batch] for n in range(len(shares))]
    extras = [extra(index, f"more{n}", share, lists, limit) for n, (share, lists) in enumerate(zip(shares, more, strict=True))]
    longs, chosens, out = ([user[n] for user in batch] for n in (1, 0, 3))
    found = retrieve(index.look(), longs, chosens, short, out, limit, None, extras, searches)
    there = {item: (HOME[item], vector) for item, vector in zip(ITEMS, VECTORS, strict=True) if item not in deleted}
    assert len(found) == len(batch)
    for number, (user, (chosen, long, vector, exclude, _)) in enumerate(zip(found, batch, strict=True)):
        lists = [
            (category, chance, reference_search.search(there, of, limit, category, exclude))
            for (category, chance), of in zip(chosen, long, strict=True)
        ]
        pool = reference_search.search(there, np.array(vector, np.float32), limit, None, exclude)
        ranked = [[(item, float(rank), HOME[item]) for rank, item in enumerate(more[n][number][:limit])] for n in range(len(shares))]
        slow = [(f"more{n}", share, ranked[n]) for n, share in enumerate(shares)]
        assert user == reference_merge.merge(lists, [(item, score, HOME[item]) for item, score in pool], limit, slow, searches)


def made_index(n=600, d=16):
    vectors = np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)
    codebook = Codebook.train(vectors, 4, seed=0)
    ids, categories = [f"i{row}" for row in range(n)], [f"c{row % 6}" for row in range(n)]
    return ItemIndex(codebook, vectors, ids, categories, available=np.arange(n) % 2 == 0), vectors


def test_retrieve_searches_each_users_categories_and_the_pool():
    index, vectors = made_index()
    now = index.look()
    chosen = [[("c1", 0.6), ("c2", 0.3)], [], [("c1", 1.0), ("new", 0.2)]]
    long = [vectors[[1, 2]], vectors[:0], vectors[[7, 8]]]
    excludes = [{"i1", "i0"}, {"i3"}, set()]
    found = retrieve(now, long, chosen, vectors[[0, 3, 4]], excludes, 30)
    assert [len(user) for user in found] == [30, 30, 30]
    for user, exclude in zip(found, excludes, strict=True):
        assert not exclude & {candidate.item for candidate in user}
        assert all(index.category_of(candidate.item) == candidate.category for candidate in user)
    assert {candidate.category for candidate in found[0] if candidate.path == "category"} == {"c1", "c2"}
    assert {candidate.path for candidate in found[1]} == {"short"}
    assert found[2][0].item == "i7"
    alone = [retrieve(now, [long[u]], [chosen[u]], vectors[[[0, 3, 4][u]]], [excludes[u]], 30)[0] for u in range(3)]
    assert [[(c.item, c.path) for c in user] for user in found] == [[(c.item, c.path) for c in user] for user in alone]
    assert retrieve_short(now, vectors[[3]], [{"i3"}], 30)[0] == alone[1]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_list_beside_the_searches_has_its_share_and_leaves_the_places_it_does_not_fill(share):
    index, vectors = made_index()
    long, chosen, excludes = [vectors[[1, 2]]] * 3, [[("c1", 0.6), ("c2", 0.3)]] * 3, [set()] * 3
    everything = retrieve(index.look(), long[:1], chosen[:1], vectors[:1], excludes[:1], 600)[0]
    last = [c.item for c in everything[::-1] if c.item not in {hit.item for hit in everything[:200]}][:100]
    lists = [last, last[:2], []]  # items that the searches would not give
    plain = retrieve(index.look(), long, chosen, vectors[[0, 0, 0]], excludes, 100)
    found = retrieve(index.look(), long, chosen, vectors[[0, 0, 0]], excludes, 100, extras=[extra(index, "more", share, lists, 100)])
    given = [c.item for c in found[0] if c.path == "more"]
    assert given == last[: len(given)]
    for most in (20, 50, 100):  # the searches find some items twice, which leaves a place or two
        assert sum(c.path == "more" for c in found[0][:most]) == pytest.approx(most * share, abs=max(2, 0.04 * most))
    assert {c.item for c in found[1] if c.path == "more"} == set(last[:2])
    assert [c for c in found[1] if c.path != "more"] == plain[1][:98]
    assert found[2] == plain[2]


def test_the_order_of_a_users_categories_makes_no_difference():
    index, vectors = made_index()
    chosen, long = [("c1", 0.3), ("c2", 0.3), ("c3", 0.4)], vectors[[1, 2, 3]]
    first, turned = (
        retrieve(index.look(), [long[order]], [[chosen[n] for n in order]], vectors[:1], [set()], 90) for order in ([0, 1, 2], [2, 1, 0])
    )
    assert [(c.item, c.path) for c in first[0]] == [(c.item, c.path) for c in turned[0]]


def test_retrieve_returns_only_items_that_the_filter_lets_through():
    index, vectors = made_index()
    for where, even in ((Where(available=True), {0}), (Where(), {0, 1}), (None, {0, 1})):
        [found] = retrieve(index.look(), [vectors[[1, 2]]], [[("c1", 0.6), ("c2", 0.3)]], vectors[[0]], [set()], 100, where)
        assert {int(candidate.item[1:]) % 2 for candidate in found} == even
        [found] = retrieve_short(index.look(), vectors[[0]], [set()], 100, where)
        assert {int(candidate.item[1:]) % 2 for candidate in found} == even


def test_retrieve_sees_new_items_and_never_deleted_ones():
    index, vectors = made_index()
    new = vectors[0] * 4
    before = index.look()
    index.apply([Upsert("new", "c9", new, index.codebook.encode(new[None])[0], index.generation), Delete("i0")])
    [found] = retrieve(index.look(), [new[None]], [[("c9", 1.0)]], vectors[[0]], [set()], 600)
    assert (found[0].item, found[0].path, found[0].category) == ("new", "category", "c9")
    assert len(found) == 600
    assert "i0" not in {candidate.item for candidate in found}
    [found] = retrieve(before, [new[None]], [[("c9", 1.0)]], vectors[[0]], [set()], 1)
    assert found[0].item == "i0"  # a view is one moment


def test_retrieve_refuses_rows_that_do_not_fit():
    index, vectors = made_index(20)
    now = index.look()
    with pytest.raises(ValueError, match="user 0 has 2"):
        retrieve(now, [vectors[:2]], [[("c0", 1.0)]], vectors[:1], [set()], 5)
    with pytest.raises(ValueError, match="users"):
        retrieve(now, [], [], vectors[:1], [set()], 5)
    for wrong in (extra(index, "more", 0.5, [[]], 4), extra(index, "more", 0.5, [[], []], 5), extra(index, "more", 1.0, [[]], 5)):
        with pytest.raises(ValueError, match="list more"):
            retrieve_short(now, vectors[:1], [set()], 5, extras=[wrong])
    assert retrieve(now, [], [], vectors[:0], [], 5) == []
    assert retrieve(now, [vectors[:1]], [[("c0", 1.0)]], vectors[:1], [set()], 0) == [[]]
    assert retrieve(ItemIndex(index.codebook, vectors[:0], [], []).look(), [vectors[:0]], [[]], vectors[:1], [set()], 5) == [[]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(ITEMS), st.integers(0, 4)), unique_by=lambda pair: pair[0]),
    st.lists(st.tuples(st.sampled_from(["c0", "c1", "c9"]), st.integers(0, 3).map(float)), unique_by=lambda pair: pair[0]),
    excludes,
    st.sets(st.sampled_from(ITEMS)),
    st.integers(0, 40),
)
def test_popular_keeps_the_same_promises(counts, categories, exclude, deleted, limit):
    index = whole_index()
    index.apply([Delete(item) for item in deleted])
    now = index.look()
    popular = Popular.of((item, HOME[item], number) for item, number in counts)
    found = popular_candidates(popular, categories, limit=limit, exclude=exclude, view=now)
    names = [candidate.item for candidate in found]
    possible = {item for item, number in counts if number} - exclude - deleted
    assert len(names) == len({*names}) == min(limit, len(possible))
    assert {*names} <= possible
    paths = [candidate.path for candidate in found]
    assert paths == sorted(paths, key=["category_popular", "popular"].index)
    own = {category for category, _ in categories}
    assert all((candidate.category in own) == (candidate.path == "category_popular") for candidate in found)
    assert popular_candidates(popular, categories[::-1], limit=limit, exclude=exclude, view=now) == found


def test_popular_items_that_moved_or_are_held_back_are_left_out():
    index = whole_index()
    code = index.codebook.encode(VECTORS[:1])[0]
    moved = Upsert("i00", "elsewhere", VECTORS[0], code, index.generation)
    empty = Upsert("i07", "c1", VECTORS[0], code, index.generation, available=False)
    popular = Popular.of([("i00", "c0", 9), ("i07", "c1", 8), ("i14", "c2", 7)])

    def found(where):
        chosen = popular_candidates(popular, [("c1", 1.0)], limit=5, exclude=set(), view=index.look(), where=where)
        return [candidate.item for candidate in chosen]

    available = Where(available=True)
    assert found(available) == ["i07", "i00", "i14"]
    index.apply([moved])
    assert found(None) == ["i07", "i14"]
    index.apply([empty])
    assert (found(None), found(available)) == (["i07", "i14"], ["i14"])


def test_popular_is_ordered_by_count_then_id_and_bounded():
    popular = Popular.of([("b", "x", 2), ("a", "x", 2), ("c", "y", 9), ("z", "y", 0)], depth=2)
    assert popular.by_category == {"x": [("a", 2.0), ("b", 2.0)], "y": [("c", 9.0)]}
    assert [item for item, _, _ in popular.overall] == ["c", "a"]
    found = popular_candidates(popular, [], limit=9, exclude=set())
    assert [(c.item, c.path) for c in found] == [("c", "popular"), ("a", "popular")]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(ITEMS), st.integers(1, 4)), unique_by=lambda pair: pair[0]),
    st.lists(st.sampled_from(ITEMS), unique=True),
    excludes,
    st.integers(0, 40),
    st.sampled_from([0.0, 0.3, 0.9]),
)
def test_own_items_are_one_more_list_beside_popular_ones(counts, own, exclude, limit, share):
    popular = Popular.of((item, HOME[item], number) for item, number in counts)
    mine = [Candidate(item, float(-rank), HOME[item], "repeat") for rank, item in enumerate(own)]
    found = popular_candidates(popular, [("c0", 2.0), ("c1", 1.0)], limit=limit, exclude=exclude, own=mine, own_share=share)
    places = {}
    lists = [(popular.by_category.get("c0", []), 0.25 / 2 + 0.75 * 2 / 3), (popular.by_category.get("c1", []), 0.25 / 2 + 0.75 / 3)]
    lists.append((([(candidate.item, 0.0) for candidate in mine] if share else []), share / (1 - share)))
    for number, (hits, weight) in enumerate(lists):
        kept = [item for item, _ in hits if item not in exclude]
        for rank, item in enumerate(kept):
            places[item] = min(places.get(item, (np.inf, item, 9)), ((rank + 0.5) / weight, item, number))
    expected = [item for _, item, _ in sorted(places.values())]
    expected += [item for item, _, _ in popular.overall if item not in exclude and item not in expected]
    assert [candidate.item for candidate in found] == expected[:limit]
    assert {candidate.item for candidate in found if candidate.path == "repeat"} <= {*own}

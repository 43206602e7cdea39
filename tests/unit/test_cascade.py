import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.cascade import Popular, merge, popular_candidates, retrieve, retrieve_short
from models.codebook import Codebook
from models.index import Delete, ItemIndex, Upsert

ITEMS = [f"i{number:02d}" for number in range(30)]
HOME = {item: f"c{number % 4}" for number, item in enumerate(ITEMS)}

scores = st.integers(-3, 3).map(float)
excludes = st.sets(st.sampled_from(ITEMS))


@pytest.fixture(autouse=True)
def one_thread():
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


@st.composite
def finds(draw):
    lists = []
    for category in draw(st.lists(st.sampled_from(["c0", "c1", "c2", "c3"]), unique=True)):
        own = [item for item in ITEMS if HOME[item] == category]
        hits = draw(st.lists(st.tuples(st.sampled_from(own), scores), unique_by=lambda hit: hit[0]))
        lists.append((category, draw(st.sampled_from([0.0, 0.1, 0.4, 0.4])), hits))
    return lists, draw(st.lists(st.tuples(st.sampled_from(ITEMS), scores), unique_by=lambda hit: hit[0]))


@settings(max_examples=200, deadline=None)
@given(finds(), excludes, st.integers(0, 40), st.randoms(use_true_random=False))
def test_any_merge_keeps_its_promises(found, exclude, limit, random):
    lists, short = found
    merged = merge(lists, short, limit=limit, exclude=exclude, category_of=HOME.get)
    names = [candidate.item for candidate in merged]
    every = {item for _, _, hits in lists for item, _ in hits} | {item for item, _ in short}
    assert len(names) == len({*names}) == min(limit, len(every - exclude))
    assert not exclude & {*names}
    by_list = {(item, "category", score) for _, _, hits in lists for item, score in hits} | {(i, "short", s) for i, s in short}
    assert {(c.item, c.path, c.score) for c in merged} <= by_list
    assert all(candidate.category == HOME[candidate.item] for candidate in merged)

    longer = merge(lists, short, limit=limit + 5, exclude=exclude, category_of=HOME.get)
    assert longer[:limit] == merged  # any first k has the quotas

    shuffled = [(category, probability, random.sample(hits, len(hits))) for category, probability, hits in lists]
    random.shuffle(shuffled)
    assert merge(shuffled, random.sample(short, len(short)), limit=limit, exclude=exclude, category_of=HOME.get) == merged


def long_list(prefix, n, score=0.0):
    return [(f"{prefix}{number:03d}", score - number) for number in range(n)]


def test_quotas_follow_probability_with_a_floor_and_a_share_for_the_short_list():
    lists = [("a", 0.9, long_list("a", 300)), ("b", 0.1, long_list("b", 300)), ("c", 0.0, long_list("c", 300))]
    merged = merge(lists, long_list("s", 300, 1e6), limit=200, exclude=set(), category_of=lambda item: item[0])
    shares = {key: sum(candidate.category == key for candidate in merged) for key in "abcs"}
    assert shares["s"] == 40  # 0.2 of 200
    # of 160: a quarter evenly, 13.3 each; three quarters by probability
    assert shares == {"s": 40, "a": pytest.approx(121, abs=1), "b": pytest.approx(25, abs=1), "c": pytest.approx(13, abs=1)}
    first = merged[:20]
    assert sum(candidate.path == "short" for candidate in first) == 4


def test_places_that_a_list_leaves_go_to_the_others():
    merged = merge([("a", 1.0, long_list("a", 3))], long_list("s", 100), limit=50, exclude=set(), category_of=lambda item: item[0])
    assert [candidate.item for candidate in merged if candidate.path == "category"] == ["a000", "a001", "a002"]
    assert len(merged) == 50
    only = merge([("a", 1.0, long_list("a", 60))], [], limit=50, exclude=set(), category_of=HOME.get)
    assert len(only) == 50


def test_an_item_of_several_lists_has_its_best_place_and_its_finders_path():
    lists = [("a", 1.0, [("x", 5.0), ("y", 4.0)])]
    merged = merge(lists, [("y", 9.0), ("x", 8.0)], limit=5, exclude=set(), category_of=lambda _: "a")
    assert [(c.item, c.path, c.score) for c in merged] == [("x", "category", 5.0), ("y", "category", 4.0)]
    late = [("a", 0.1, [*long_list("a", 50), ("z", -99.0)]), ("b", 0.9, long_list("b", 50))]
    merged = merge(late, [("z", 1.0)], limit=50, exclude=set(), category_of=lambda _: "a")
    [z] = [candidate for candidate in merged if candidate.item == "z"]
    assert (z.path, z.category) == ("short", "a")


def test_a_short_hit_that_was_just_deleted_is_left_out():
    merged = merge([], [("a", 2.0), ("b", 1.0)], limit=5, exclude=set(), category_of={"b": "c"}.get)
    assert [candidate.item for candidate in merged] == ["b"]


def made_index(n=600, d=16):
    vectors = np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)
    codebook = Codebook.train(vectors, 4, seed=0)
    return ItemIndex(codebook, vectors, [f"i{row}" for row in range(n)], [f"c{row % 6}" for row in range(n)]), vectors


def test_retrieve_searches_each_users_categories_and_the_pool():
    index, vectors = made_index()
    chosen = [[("c1", 0.6), ("c2", 0.3)], [], [("c1", 1.0), ("new", 0.2)]]
    long = [vectors[[1, 2]], vectors[:0], vectors[[7, 8]]]
    excludes = [{"i1", "i0"}, {"i3"}, set()]
    found = retrieve(index, long, chosen, vectors[[0, 3, 4]], excludes, 30)
    assert [len(user) for user in found] == [30, 30, 30]
    for user, exclude in zip(found, excludes, strict=True):
        assert not exclude & {candidate.item for candidate in user}
        assert all(index.category_of(candidate.item) == candidate.category for candidate in user)
    assert {candidate.category for candidate in found[0] if candidate.path == "category"} == {"c1", "c2"}
    assert {candidate.path for candidate in found[1]} == {"short"}
    assert found[2][0].item == "i7"
    alone = [
        retrieve(index, [long[u]], [chosen[u]], vectors[[[0, 3, 4][u]]], [excludes[u]], 30)[0] for u in range(3)
    ]
    assert [[(c.item, c.path) for c in user] for user in found] == [[(c.item, c.path) for c in user] for user in alone]
    assert retrieve_short(index, vectors[[3]], [{"i3"}], 30)[0] == alone[1]


def test_retrieve_sees_new_items_and_never_deleted_ones():
    index, vectors = made_index()
    new = vectors[0] * 4
    index.apply([Upsert("new", "c9", new, index.codebook.encode(new[None])[0], index.generation), Delete("i0")])
    [found] = retrieve(index, [new[None]], [[("c9", 1.0)]], vectors[[0]], [set()], 600)
    assert (found[0].item, found[0].path, found[0].category) == ("new", "category", "c9")
    assert len(found) == 600
    assert "i0" not in {candidate.item for candidate in found}


def test_retrieve_refuses_rows_that_do_not_fit():
    index, vectors = made_index(20)
    with pytest.raises(ValueError, match="user 0 has 2"):
        retrieve(index, [vectors[:2]], [[("c0", 1.0)]], vectors[:1], [set()], 5)
    with pytest.raises(ValueError, match="users"):
        retrieve(index, [], [], vectors[:1], [set()], 5)
    assert retrieve(index, [], [], vectors[:0], [], 5) == []


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(ITEMS), st.integers(0, 4)), unique_by=lambda pair: pair[0]),
    st.lists(st.tuples(st.sampled_from(["c0", "c1", "c9"]), st.integers(0, 3).map(float)), unique_by=lambda pair: pair[0]),
    excludes,
    st.sets(st.sampled_from(ITEMS)),
    st.integers(0, 40),
)
def test_popular_keeps_the_same_promises(counts, categories, exclude, deleted, limit):
    def category_of(item):
        return None if item in deleted else HOME[item]

    popular = Popular.of((item, HOME[item], number) for item, number in counts)
    found = popular_candidates(popular, categories, limit=limit, exclude=exclude, category_of=category_of)
    names = [candidate.item for candidate in found]
    possible = {item for item, number in counts if number} - exclude - deleted
    assert len(names) == len({*names}) == min(limit, len(possible))
    assert {*names} <= possible
    paths = [candidate.path for candidate in found]
    assert paths == sorted(paths, key=["category_popular", "popular"].index)
    own = {category for category, _ in categories}
    assert all((candidate.category in own) == (candidate.path == "category_popular") for candidate in found)
    assert popular_candidates(popular, categories[::-1], limit=limit, exclude=exclude, category_of=category_of) == found


def test_popular_is_ordered_by_count_then_id_and_bounded():
    popular = Popular.of([("b", "x", 2), ("a", "x", 2), ("c", "y", 9), ("z", "y", 0)], depth=2)
    assert popular.by_category == {"x": [("a", 2.0), ("b", 2.0)], "y": [("c", 9.0)]}
    assert [item for item, _, _ in popular.overall] == ["c", "a"]
    found = popular_candidates(popular, [], limit=9, exclude=set())
    assert [(c.item, c.path) for c in found] == [("c", "popular"), ("a", "popular")]

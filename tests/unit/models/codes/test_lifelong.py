import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codes.codebook import Codebook
from models.codes.lifelong import CodedHistories, CodeTable, LifelongSearch, best
from research.codes.lifelong_torch import DeviceSearch, first_best
from tests.references import lifelong as reference

FIRST, KEPT = 12, 5  # small ones, so that short histories overflow them


def whole(rng, *shape, top=3):
    """Small whole numbers: sums are exact whatever their order, so equal means equal, ties included."""
    return rng.integers(-top, top + 1, shape).astype(np.float32)


class World:
    """Items, histories of users and queries, all of small whole numbers, drawn by a seed."""

    def __init__(self, seed, lengths, targets=1, subspaces=4, items=40, bias=False, mask=False, absent=False, apart=False, centroids=7):
        rng = np.random.default_rng(seed)
        self.codebook = Codebook.from_centroids(whole(rng, subspaces, centroids, 2))
        self.codes = rng.integers(0, centroids, (items, subspaces)).astype(np.uint8)
        dim = 3 if apart else self.codebook.dim
        self.vectors = whole(rng, items, dim)
        self.queries = whole(rng, len(lengths), targets, self.codebook.dim)
        self.exact = whole(rng, len(lengths), targets, dim) if apart else None
        offsets, total = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64), sum(lengths)
        numbers = rng.integers(-3 if absent else 0, items, total)
        biases = whole(rng, total, top=2) if bias else None
        self.histories = CodedHistories(numbers, offsets, biases, rng.random(total) < 0.7 if mask else None)

    def wanted(self, user, target, first=FIRST, kept=KEPT):
        first_, last = self.histories.offsets[user : user + 2]
        numbers, bias, mask = (None if a is None else a[first_:last] for a in self.histories[:1] + self.histories[2:4])
        return reference.search(
            self.codebook,
            self.queries[user, target],
            self.codes[np.maximum(numbers, 0)],
            self.vectors[np.maximum(numbers, 0)],
            bias=bias,
            mask=[bool(n >= 0 and (mask is None or mask[at])) for at, n in enumerate(numbers)],
            exact=None if self.exact is None else self.exact[user, target],
            first=first,
            kept=kept,
        )

    def found(self, first=FIRST, kept=KEPT):
        search = LifelongSearch(self.codebook, first, kept)
        return search.search(self.queries, CodeTable(self.codes, self.vectors), self.histories, self.exact)

    def found_by_torch(self, first=FIRST, kept=KEPT):
        def to(array):
            return None if array is None else torch.from_numpy(array)

        search = DeviceSearch(self.codebook, to(self.codes), to(self.vectors), first, kept)
        numbers, offsets, bias, mask, _ = map(to, self.histories)
        positions, scores = search.search(to(self.queries), numbers, offsets, bias, mask, to(self.exact))
        return positions.numpy(), scores.numpy()


def agree(world, positions, scores, first=FIRST, kept=KEPT):
    users, targets = world.queries.shape[:2]
    assert positions.shape == scores.shape == (users, targets, kept)
    for user in range(users):
        for target in range(targets):
            wanted = world.wanted(user, target, first, kept)
            rest = kept - len(wanted)
            assert positions[user, target].tolist() == [position for position, _ in wanted] + [-1] * rest
            assert scores[user, target].tolist() == [score for _, score in wanted] + [-np.inf] * rest


Worlds = st.builds(
    World,
    st.integers(0, 2**32),
    st.lists(st.one_of(st.integers(0, 3), st.integers(0, 60)), max_size=4),
    targets=st.integers(1, 3),
    subspaces=st.sampled_from([1, 2, 3, 4, 8, 16]),
    items=st.sampled_from([1, 5, 60]),
    bias=st.booleans(),
    mask=st.booleans(),
    absent=st.booleans(),
    apart=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(Worlds)
def test_any_histories_equal_the_reference(world):
    agree(world, *world.found())


@settings(max_examples=80, deadline=None)
@given(Worlds)
def test_the_torch_path_equals_the_reference(world):
    agree(world, *world.found_by_torch())


@pytest.mark.parametrize("lengths", [[0], [1], [127], [128], [129], [0, 0], [129, 0, 1, 128, 400], []])
@pytest.mark.parametrize("bias", [False, True])
def test_lengths_about_the_first_128(lengths, bias):
    world = World(3, lengths, subspaces=16, items=300, bias=bias)
    agree(world, *world.found(128, 32), 128, 32)
    agree(world, *world.found_by_torch(128, 32), 128, 32)


def test_a_long_history_of_real_numbers():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3_000, 32)).astype(np.float32)
    codebook = Codebook.train(vectors, 8, seed=0)
    codes = codebook.encode(vectors)
    queries = rng.standard_normal((2, 2, 32)).astype(np.float32)
    numbers = rng.integers(0, 3_000, 10_000)
    histories = CodedHistories(numbers, np.array([0, 10_000, 10_000]))
    search = LifelongSearch(codebook)
    both = search.search(queries, CodeTable(codes, vectors), histories)
    alone = search.search(queries[:, 1], CodeTable(codes, vectors), histories)  # one target: the other way through
    given = search.search(queries[:, 1], CodeTable(codes, vectors), histories._replace(codes=codes[numbers]))
    np.testing.assert_array_equal(both.positions[:, 1], alone.positions[:, 0])
    np.testing.assert_array_equal(given.positions, alone.positions)
    for target in range(2):
        wanted = reference.search(codebook, queries[0, target], codes[numbers], vectors[numbers])
        assert both.positions[0, target].tolist() == [position for position, _ in wanted]
        np.testing.assert_allclose(both.scores[0, target], [score for _, score in wanted], atol=1e-5)
        np.testing.assert_allclose(both.weights()[0, target], reference.attention([score for _, score in wanted]), atol=1e-6)
    assert (both.positions[1] == -1).all()
    assert (both.weights()[1] == 0).all()


def test_scores_of_codes_are_inner_products_with_what_they_stand_for():
    rng = np.random.default_rng(1)
    codebook = Codebook.train(rng.standard_normal((600, 16)).astype(np.float32), 4, seed=0)
    codes, queries = rng.integers(0, 256, (50, 4)).astype(np.uint8), rng.standard_normal((3, 16)).astype(np.float32)
    np.testing.assert_allclose(LifelongSearch(codebook).scores(queries, codes), queries @ codebook.decode(codes).T, atol=1e-5)


def test_one_item_again_and_again_is_ordered_by_position():
    world = World(0, [500], items=1)
    assert world.found().positions.tolist() == [[[*range(KEPT)]]]
    assert world.found_by_torch()[0].tolist() == [[[*range(KEPT)]]]


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_best_are_the_first_among_equals(count):
    scores = np.array([1, 5, 2, 5, 2, 2, 0, 2], np.float32)
    wanted = sorted(sorted(range(8), key=lambda at: -scores[at])[:count])
    assert best(scores, count).tolist() == wanted
    assert first_best(torch.from_numpy(scores)[None, None], count)[0, 0].tolist() == wanted


def test_attention_of_a_model_is_folded_into_the_query():
    """(W_Q t).(W_K s) over projected keys finds and weighs what W_K^T W_Q t does over the vectors themselves."""
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((400, 16)).astype(np.float32)
    ask, key, target = (rng.standard_normal(shape).astype(np.float32) / 4 for shape in [(16, 16), (16, 16), (16,)])
    codebook = Codebook.train(vectors, 8, seed=0)
    folded = (key.T @ ask @ target / 4)[None]
    histories = CodedHistories(np.arange(400), np.array([0, 400]))
    found = LifelongSearch(codebook, 400, 32).search(folded, CodeTable(codebook.encode(vectors), vectors), histories)
    scores = (vectors @ key.T) @ (ask @ target) / 4
    wanted = np.argsort(-scores)[:32]
    assert found.positions[0, 0].tolist() == wanted.tolist()
    np.testing.assert_allclose(found.scores[0, 0], scores[wanted], atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"offsets": np.array([0, 4])},
        {"offsets": np.array([1, 5])},
        {"offsets": np.array([0, 3, 5])},
        {"bias": np.zeros(4, np.float32)},
        {"bias": np.full(5, np.nan, np.float32)},
        {"mask": np.ones(6, np.bool_)},
        {"codes": np.zeros((4, 4), np.uint8)},
    ],
)
def test_histories_that_do_not_fit_are_refused(change):
    world = World(0, [5])
    world.histories = world.histories._replace(**change)
    with pytest.raises(ValueError, match=r"offsets|bias|mask|codes"):
        world.found()


@pytest.mark.parametrize("queries", [np.zeros((1, 1, 7)), np.zeros(8), np.full((1, 8), np.inf), np.zeros((1, 0, 8))])
def test_queries_that_do_not_fit_are_refused(queries):
    world = World(0, [5])
    world.queries = queries
    with pytest.raises(ValueError, match="queries"):
        world.found()

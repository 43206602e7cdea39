import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.codes.codebook import Codebook, taken
from tests.references import search as reference_search


def draw(n, d=32, seed=0, clusters=40):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, d))
    return (centres[rng.integers(0, clusters, n)] + 0.5 * rng.standard_normal((n, d))).astype(np.float32)


def test_codes_equal_the_reference_bit_for_bit():
    codebook = Codebook.train(draw(2_000), 4, seed=3)
    vectors = draw(300, seed=1)
    assert codebook.centroids.shape == (4, 256, 8)
    np.testing.assert_array_equal(codebook.encode(vectors), reference_search.encode(codebook, vectors))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_codes_equal_the_reference_on_ties_and_odd_numbers(data):
    p, c, w, n = (data.draw(st.integers(1, top)) for top in (3, 9, 4, 6))
    numbers = st.one_of(st.integers(-3, 3).map(float), st.floats(-(2.0**60), 2.0**60, width=32))
    centroids = data.draw(arrays(np.float32, (p, c, w), elements=numbers))
    vectors = data.draw(arrays(np.float32, (n, p * w), elements=numbers))
    codebook = Codebook.from_centroids(centroids)
    np.testing.assert_array_equal(codebook.encode(vectors), reference_search.encode(codebook, vectors))


def test_an_item_has_the_same_code_alone_and_in_a_batch():
    codebook = Codebook.train(draw(1_000), 4, seed=3)
    vectors = draw(64, seed=2)
    alone = np.concatenate([codebook.encode(vector[None]) for vector in vectors])
    np.testing.assert_array_equal(alone, codebook.encode(vectors))


def test_training_is_a_function_of_vectors_and_seed():
    first, again, other = (Codebook.train(draw(1_500), 4, seed=seed) for seed in (7, 7, 8))
    assert first.generation == again.generation != other.generation
    np.testing.assert_array_equal(first.centroids, again.centroids)
    assert Codebook.from_centroids(first.centroids.copy()).generation == first.generation


@pytest.mark.parametrize("n", [1, 2, 100, 256])
def test_few_vectors_are_coded_without_error(n):
    vectors = draw(n)
    codebook = Codebook.train(vectors, 4, seed=0)
    assert codebook.size == n
    np.testing.assert_array_equal(codebook.decode(codebook.encode(vectors)), vectors)


def test_decode_is_near_and_codes_of_decoded_vectors_are_stable():
    vectors = draw(3_000)
    codebook = Codebook.train(vectors, 8, seed=0)
    codes = codebook.encode(vectors)
    assert codes.dtype == np.uint8
    assert codes.shape == (3_000, 8)
    error = np.square(codebook.decode(codes) - vectors).sum() / np.square(vectors - vectors.mean(axis=0)).sum()
    assert error < 0.15
    np.testing.assert_array_equal(codebook.encode(codebook.decode(codes)), codes)


def test_tables_give_the_score_of_a_code():
    codebook = Codebook.train(draw(600), 4, seed=0)
    queries, codes = draw(5, seed=9), codebook.encode(draw(50, seed=8))
    tables = codebook.tables(queries)
    assert tables.shape == (5, 4, 256)
    for table, query in zip(tables, queries, strict=True):
        scores = table[np.arange(4), codes].sum(axis=1)
        np.testing.assert_allclose(scores, reference_search.score_codes(codebook, query, codes), rtol=1e-4, atol=1e-4)


def test_no_vectors_encode_to_no_codes():
    codebook = Codebook.train(draw(10), 4, seed=0)
    assert codebook.encode(np.empty((0, 32), np.float32)).shape == (0, 4)
    assert codebook.decode(np.empty((0, 4), np.uint8)).shape == (0, 32)


def test_what_cannot_be_coded_is_refused():
    codebook = Codebook.train(draw(10), 4, seed=0)
    for bad in (np.zeros((2, 31)), np.full((1, 32), np.nan), np.zeros(32)):
        with pytest.raises(ValueError, match="vectors must be"):
            codebook.encode(bad)
    with pytest.raises(ValueError, match="codes must be"):
        codebook.decode(np.full((1, 4), 10, np.uint8))
    for vectors, parts in ((draw(0), 4), (draw(10), 5), (draw(10), 0)):
        with pytest.raises(ValueError, match="cannot cut"):
            Codebook.train(vectors, parts, seed=0)
    for bad in (np.zeros((4, 257, 8)), np.zeros((4, 8)), np.zeros((4, 0, 8))):
        with pytest.raises(ValueError, match="centroids"):
            Codebook.from_centroids(bad)


def test_no_code_is_dead_after_a_cold_start():
    rng = np.random.default_rng(4)
    tight = np.repeat(rng.standard_normal((3, 32)), 1_000, axis=0) + 1e-3 * rng.standard_normal((3_000, 32))
    codebook = Codebook.train(tight.astype(np.float32), 4, seed=0, rounds=2)
    codes = codebook.encode(tight.astype(np.float32))
    assert [len(np.unique(column)) for column in codes.T] == [256] * 4


def test_only_as_many_codes_live_as_there_are_different_parts():
    few = np.repeat(draw(10), 100, axis=0)
    codebook = Codebook.train(few, 4, seed=0)
    np.testing.assert_array_equal(codebook.decode(codebook.encode(few)), few)


def test_a_warm_start_keeps_every_code_where_nothing_drifted():
    cold = Codebook.train(draw(12_000, clusters=2_000), 4, seed=0)
    warm = Codebook.train(draw(12_000, clusters=2_000), 4, seed=1, start=cold)
    vectors = draw(12_000, clusters=2_000)
    assert (warm.encode(vectors) != cold.encode(vectors)).mean() < 0.03


def test_a_warm_start_fits_what_is_new_and_keeps_most_codes():
    old = draw(6_000)
    new = np.concatenate([old[:5_000], draw(1_000, seed=5, clusters=3) + np.float32(3)])
    cold, start = Codebook.train(new, 4, seed=1), Codebook.train(old, 4, seed=0)
    warm = Codebook.train(new, 4, seed=1, start=start)
    books = {"cold": cold, "start": start, "warm": warm}
    error = {name: np.square(book.decode(book.encode(new)) - new).mean() for name, book in books.items()}
    assert error["warm"] < 1.15 * error["cold"]
    assert error["warm"] < 0.5 * error["start"]
    kept, anew = ((book.encode(old[:5_000]) != start.encode(old[:5_000])).mean() for book in (warm, cold))
    assert kept < 0.25 < 0.9 < anew


def test_a_warm_start_grows_with_a_small_catalogue_and_never_shrinks():
    small = Codebook.train(draw(20), 4, seed=0)
    grown = Codebook.train(draw(100), 4, seed=0, start=small)
    assert (small.size, grown.size) == (20, 100)
    assert np.square(grown.decode(grown.encode(draw(100))) - draw(100)).mean() < 0.01 * np.square(draw(100)).mean()
    assert Codebook.train(draw(5), 4, seed=0, start=grown).size == 100
    assert Codebook.train(draw(400), 4, seed=0, start=small).size == 256


def test_no_rounds_change_no_centroid():
    start = Codebook.train(draw(2_000), 4, seed=0)
    assert Codebook.train(draw(2_000), 4, seed=1, start=start, rounds=0).generation == start.generation


def test_zero_parts_are_coded_as_zero():
    vectors = draw(2_000)
    vectors[5:40, :16] = 0
    codebook = Codebook.train(vectors, 4, seed=0)
    decoded = codebook.decode(codebook.encode(vectors))
    assert not decoded[5:40, :16].any()
    assert not Codebook.train(vectors, 4, seed=3, start=codebook).decode(codebook.encode(vectors))[5:40, :16].any()


def test_a_start_of_another_shape_is_refused():
    start = Codebook.train(draw(300), 4, seed=0)
    for vectors, parts in ((draw(300), 8), (draw(300, d=16), 4)):
        with pytest.raises(ValueError, match="cannot start"):
            Codebook.train(vectors, parts, seed=0, start=start)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 17), st.integers(1, 9), st.integers(0, 3), st.integers(1, 2), st.lists(st.integers(0, 8), max_size=20))
def test_rows_of_codes_are_those_of_plain_indexing(subspaces, count, shift, step, rows):
    memory = np.random.default_rng(0).integers(0, 256, 2 * count * subspaces + shift, dtype=np.uint8)  # anywhere in memory
    codes = memory[shift : shift + step * count * subspaces].reshape(step * count, subspaces)[::step]
    at = np.array(rows, np.int64) % count
    np.testing.assert_array_equal(taken(codes, at), codes[at])

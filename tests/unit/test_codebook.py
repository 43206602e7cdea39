import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models import reference_search
from models.codebook import Codebook


@pytest.fixture(autouse=True)
def one_thread():
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


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

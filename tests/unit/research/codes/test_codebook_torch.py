import subprocess

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.codes.codebook import Codebook
from research.codes import scanner
from research.codes.codebook_torch import TorchCodebook
from research.codes.scanner import FaissScanner, TorchScanner, choose
from tests.references import codes as reference_codes

CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run on a machine with an NVIDIA GPU")
)
on_each = pytest.mark.parametrize("device", ["cpu", CUDA])


def draw(n, d=32, seed=0, clusters=40):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, d))
    return (centres[rng.integers(0, clusters, n)] + 0.5 * rng.standard_normal((n, d))).astype(np.float32)


@pytest.fixture(scope="module")
def codebook():
    return Codebook.train(draw(2_000), 4, seed=3, rounds=3)


def codes_on(device, codebook, vectors):
    return TorchCodebook(codebook, device).encode(torch.from_numpy(vectors).to(device)).cpu().numpy()


@on_each
@pytest.mark.parametrize("n", [0, 1, 777, 5_000])
def test_codes_equal_those_of_numpy_bit_for_bit(codebook, device, n):
    vectors = draw(n, seed=1)
    codes = codes_on(device, codebook, vectors)
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes, codebook.encode(vectors))


@on_each
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_codes_equal_on_ties_and_odd_numbers(device, data):
    p, c, w, n = (data.draw(st.integers(1, top)) for top in (3, 9, 4, 6))
    numbers = st.one_of(st.integers(-3, 3).map(float), st.floats(-(2.0**60), 2.0**60, width=32))
    codebook = Codebook.from_centroids(data.draw(arrays(np.float32, (p, c, w), elements=numbers)))
    vectors = data.draw(arrays(np.float32, (n, p * w), elements=numbers))
    np.testing.assert_array_equal(codes_on(device, codebook, vectors), codebook.encode(vectors))


@on_each
def test_codes_and_scores_hold_where_someone_lowered_the_precision_of_products(codebook, device):
    vectors = draw(2_000, seed=6)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        codes = codes_on(device, codebook, vectors)
        tables = TorchCodebook(codebook, device).tables(torch.from_numpy(vectors[:5]).to(device)).cpu().numpy()
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(codes, codebook.encode(vectors))
    np.testing.assert_allclose(tables, codebook.tables(vectors[:5]), rtol=1e-5, atol=1e-5)


@on_each
def test_tables_scores_and_decoded_vectors_agree_with_the_reference(codebook, device):
    on, queries, codes = TorchCodebook(codebook, device), draw(5, seed=9), codebook.encode(draw(50, seed=8))
    there = torch.from_numpy(codes).to(device)
    tables = on.tables(torch.from_numpy(queries).to(device))
    np.testing.assert_allclose(tables.cpu().numpy(), codebook.tables(queries), rtol=1e-5, atol=1e-5)
    scores = on.scores(tables, there).cpu().numpy()
    expected = reference_codes.scores(codebook, queries, codes)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(on.decode(there).cpu().numpy(), codebook.decode(codes))


@on_each
def test_all_of_it_stays_on_the_device(codebook, device):
    on = TorchCodebook(codebook, device)
    vectors = torch.from_numpy(draw(100)).to(device)
    codes = on.encode(vectors)
    tables = on.tables(vectors[:3])
    outputs = [codes, tables, on.decode(codes), on.scores(tables, codes), *on.best(tables, codes, 5)]
    assert {output.device.type for output in outputs} == {device}


@on_each
@pytest.mark.parametrize("k", [1, 40, 1_000])
def test_the_best_are_those_of_a_full_sort_in_whatever_steps(codebook, device, k, monkeypatch):
    monkeypatch.setattr("research.codes.codebook_torch._CELLS", 900)
    queries, codes = draw(3, seed=9), codebook.encode(draw(600, seed=8))
    on = TorchCodebook(codebook, device)
    scores, rows = on.best(on.tables(torch.from_numpy(queries).to(device)), torch.from_numpy(codes).to(device), k)
    every = reference_codes.scores(codebook, queries, codes)
    expected = -np.sort(-every, axis=1)[:, :k]
    np.testing.assert_allclose(scores.cpu().numpy(), expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(every, rows.cpu().numpy(), axis=1), expected, rtol=1e-5, atol=1e-4)


def test_what_cannot_be_coded_is_refused(codebook):
    on = TorchCodebook(codebook)
    for bad in (torch.zeros(2, 31), torch.full((1, 32), float("nan")), torch.zeros(32)):
        with pytest.raises(ValueError, match="vectors must be"):
            on.encode(bad)


@pytest.mark.parametrize("size", [20, 256])
def test_faiss_and_torch_scan_alike(size):
    codebook = Codebook.train(draw(size), 4, seed=0)
    queries, codes = draw(6, seed=9), codebook.encode(draw(500, seed=8))
    expected = -np.sort(-reference_codes.scores(codebook, queries, codes), axis=1)[:, :30]
    for scans in (FaissScanner(codebook, codes), TorchScanner(codebook, codes)):
        scores, rows = scans.best(queries, 30)
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-4)
        found = np.take_along_axis(reference_codes.scores(codebook, queries, codes), rows, axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("n", [0, 3])
def test_fewer_codes_than_wanted_are_padded(codebook, n):
    codes = codebook.encode(draw(n))
    for scans in (FaissScanner(codebook, codes), TorchScanner(codebook, codes)):
        scores, rows = scans.best(draw(2), 5)
        assert (rows >= 0).sum(axis=1).tolist() == [n, n]
        assert (scores[rows < 0] == -np.inf).all()


def test_the_choice_on_a_cpu_says_that_it_is_faiss(codebook):
    choice = choose(codebook, codebook.encode(draw(10)))
    assert isinstance(choice.scanner, FaissScanner)
    assert choice.said == f"faiss {faiss.__version__} on the CPU"


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="faiss-gpu is installed: nothing to refuse")
def test_faiss_without_gpu_support_is_refused_without_a_probe(monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    assert scanner._refused(1.0) == "faiss is installed without GPU support"


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources") and torch.cuda.is_available(), reason="the probe can succeed here")
def test_a_probe_that_fails_is_refused_with_its_last_words(monkeypatch):
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    assert "failed a probe (exit 1: AttributeError" in scanner._refused(60.0)


def test_a_probe_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(scanner, "_PROBE", "import time; time.sleep(60)")
    assert scanner._refused(0.3) == "faiss-gpu did not answer a probe in 0.3 s"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run on a machine with an NVIDIA GPU")
def test_the_choice_on_a_gpu_answers_as_numpy_does_and_says_what_it_is(codebook):
    codes, queries = codebook.encode(draw(500, seed=8)), draw(4, seed=9)
    choice = choose(codebook, codes, "cuda")
    assert choice.said.startswith(("faiss-gpu", "torch"))
    expected = -np.sort(-reference_codes.scores(codebook, queries, codes), axis=1)[:, :20]
    np.testing.assert_allclose(choice.scanner.best(queries, 20)[0], expected, rtol=1e-3, atol=1e-3)

"""Unit tests compute on one thread: small arrays gain nothing from more, and busy machines lose much by them."""

from importlib.util import find_spec

import faiss
import prometheus_client  # noqa: F401 - before Feast, whose import would switch it to metrics shared among processes
import pytest
import torch

from tests.beside import lacking


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    faiss.omp_set_num_threads(before[1])


@pytest.fixture
def _library():
    """For tests of trained contenders: the library that has them."""
    if find_spec("torch_rechub") is None:
        lacking("BASELINES", "torch-rechub is not installed: pip install 'everlong[baselines]'")

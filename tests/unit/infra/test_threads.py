"""Threads of the libraries in a process that runs models."""

import faiss
import torch
from threadpoolctl import threadpool_info

from infra.settings import load_settings
from infra.wiring import choose_device


def test_a_process_that_runs_models_keeps_to_its_threads():
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    try:
        torch.set_num_threads(2)
        faiss.omp_set_num_threads(2)
        choose_device(load_settings().model_copy(update={"torch_threads": 1, "device": "cpu"}))
        assert (torch.get_num_threads(), faiss.omp_get_max_threads()) == (1, 1)
        blas = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
        assert blas
        assert set(blas) == {1}
    finally:
        torch.set_num_threads(before[0])
        faiss.omp_set_num_threads(before[1])

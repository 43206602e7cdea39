"""Scores all codes for a batch of queries and gives the best: by faiss on a CPU, by faiss-gpu or torch on a GPU.

faiss-gpu may be installed and still have no kernel for the GPU at hand; that shows as an error, a wrong answer or the end of
the process. So it is tried in a process of its own, for a bounded time, before anything depends on it.
"""

import subprocess
import sys
from typing import Any, NamedTuple, Protocol

import faiss
import numpy as np
import torch

from models.codes.codebook import MAX_CENTROIDS, Codebook, Codes, Floats
from research.codes.codebook_torch import TorchCodebook

PROBE_S = 60.0
_PROBE = "from research.codes.scanner import probe; probe()"


class Scanner(Protocol):
    """Codes that stay where they are scored."""

    def best(self, queries: Floats, k: int) -> tuple[Floats, np.ndarray]:
        """The k best scores (B, k) of queries (B, d) and the rows (B, k) int64 of their codes, best first; -1 and -inf pad."""
        ...


class ScannerChoice(NamedTuple):
    """A scanner, and in words which one it is and why."""

    scanner: Scanner
    said: str


def choose(codebook: Codebook, codes: Codes, device: str = "cpu", within_s: float = PROBE_S) -> ScannerChoice:
    """The scanner of codes (n, P) for a device. It takes up to `within_s` seconds to try faiss-gpu on a GPU."""
    if torch.device(device).type == "cpu":
        return ScannerChoice(FaissScanner(codebook, codes), f"faiss {faiss.__version__} on the CPU")
    refused = _refused(within_s)
    if not refused:
        scanner = FaissScanner(codebook, codes, gpu=torch.device(device).index or 0)
        return ScannerChoice(scanner, f"faiss-gpu {faiss.__version__} on {device}")
    return ScannerChoice(TorchScanner(codebook, codes, device), f"torch {torch.__version__} on {device}: {refused}")


class TorchScanner:
    """By look-up in tables, on a torch device."""

    def __init__(self, codebook: Codebook, codes: Codes, device: str = "cpu") -> None:
        self._codebook = TorchCodebook(codebook, device)
        self._codes = torch.from_numpy(np.ascontiguousarray(codes)).to(device)

    def best(self, queries: Floats, k: int) -> tuple[Floats, np.ndarray]:
        """As Scanner says."""
        tables = self._codebook.tables(torch.from_numpy(np.ascontiguousarray(queries, dtype=np.float32)).to(self._codes.device))
        scores, rows = (found.cpu().numpy() for found in self._codebook.best(tables, self._codes, k))
        missing = ((0, 0), (0, k - scores.shape[1]))
        return np.pad(scores, missing, constant_values=-np.inf), np.pad(rows, missing, constant_values=-1)


class FaissScanner:
    """By faiss: one inverted list that holds all codes, on the CPU or on GPU number `gpu`."""

    def __init__(self, codebook: Codebook, codes: Codes, gpu: int | None = None) -> None:
        d, p = codebook.dim, codebook.subspaces
        self._origin = faiss.IndexFlatIP(d)
        self._origin.add(np.zeros((1, d), np.float32))
        index = faiss.IndexIVFPQ(self._origin, d, 1, p, 8, faiss.METRIC_INNER_PRODUCT)
        index.by_residual = False
        centroids = np.zeros((p, MAX_CENTROIDS, codebook.width), np.float32)
        centroids[:, : codebook.size] = codebook.centroids
        faiss.copy_array_to_vector(centroids.ravel(), index.pq.centroids)
        index.is_trained = True
        codes, rows = np.ascontiguousarray(codes, dtype=np.uint8), np.arange(len(codes), dtype=np.int64)
        if len(codes):
            lists: Any = index.invlists
            lists.add_entries(0, len(codes), faiss.swig_ptr(rows), faiss.swig_ptr(codes))
            index.ntotal = len(codes)
        self._index: Any = index
        if gpu is not None:
            self._resources = faiss.StandardGpuResources()
            self._index = faiss.index_cpu_to_gpu(self._resources, gpu, index)

    def best(self, queries: Floats, k: int) -> tuple[Floats, np.ndarray]:
        """As Scanner says."""
        scores, rows = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), k)
        return np.where(rows >= 0, scores, -np.inf).astype(np.float32), rows


def probe() -> None:
    """Search by faiss-gpu and compare with numpy.

    Raises:
        RuntimeError: it answers otherwise; whatever faiss raises where it has no kernel.
    """
    vectors = np.random.default_rng(0).standard_normal((2_000, 32), dtype=np.float32)
    codebook = Codebook.train(vectors, 8, 0, rounds=1)
    codes = codebook.encode(vectors)
    scores, _ = FaissScanner(codebook, codes, gpu=0).best(vectors[:4], 10)
    expected = -np.sort(-(vectors[:4] @ codebook.decode(codes).T), axis=1)[:, :10]
    if not np.allclose(scores, expected, rtol=1e-3, atol=1e-3):
        raise RuntimeError("faiss-gpu scores codes otherwise than numpy")


def _refused(within_s: float) -> str:
    """Why faiss-gpu is not to be used; empty where it may be."""
    if not hasattr(faiss, "StandardGpuResources"):
        return "faiss is installed without GPU support"
    try:
        subprocess.run([sys.executable, "-c", _PROBE], timeout=within_s, check=True, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        return f"faiss-gpu did not answer a probe in {within_s:g} s"
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines() or ["no message"]
        return f"faiss-gpu failed a probe (exit {error.returncode}: {lines[-1]})"
    return ""

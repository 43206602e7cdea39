"""What a refresh of the codes of a million items costs after a drift, what it changes and what it gives. One core."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bench import table
from bench.items import Items, draw, unit, users
from models.codes.codebook import Codebook, Codes, Floats
from models.codes.drift import refresh
from research.codes.codebook_torch import TorchCodebook

SUBSPACES, HITS, FETCHED, ASKED = 16, 100, 200, 256  # P, hits wanted, best codes that exact scores choose them from, queries
NEW, NEW_GROUPS, ANGLE = 0.1, 100, 0.05  # of the items; radians in the plane that turns most
STEP = 100_000
UNEVEN = 0.5  # dimension number r has a deviation of r to the power of minus this
HEADS = ("after", "refresh", "CPU s: train", "encode", "both", "bytes changed", "items changed", "distortion", "recall@100", "of 200 codes")
DEVICE_HEADS = ("device", "encode s", "tables, look-up and top 200 of 256 queries s", "codes equal", "largest error of a score")


class Drifted(NamedTuple):
    """What became of the items, and what is asked of them: queries (Q, d), the exact best (Q, 100)."""

    name: str
    vectors: Floats
    queries: Floats
    exact: np.ndarray


def measure(options: argparse.Namespace, folder: Path) -> str:
    """The section of the page."""
    loads = [table.load()]
    items = _uneven(draw("clustered", options.items))
    codebook = Codebook.train(items.vectors, SUBSPACES, 0)
    stored = codebook.encode(items.vectors)
    lines, apart, change = [], [], {"new items": (_renewed,), "turned": (_turned,), "both": (_renewed, _turned)}
    for name, steps in change.items():
        drifted = _drifted(name, items, steps)
        tried = [_try(drifted, action, codebook, stored) for action in ("none", "encode", "warm", "cold")]
        lines += [line for line, _ in tried]
        less = tried[3][1] - tried[2][1]  # (Q,)
        apart.append(f"{name} {less.mean():+.4f} (standard error {less.std() / len(less) ** 0.5:.4f})")
    devices = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    on = [_device_line(device, codebook, drifted) for device in devices]
    loads.append(table.load())
    return "\n".join(
        [
            "## Refresh: codes of a million items after a drift",
            "",
            f"{len(items):,} clustered items, d = {items.vectors.shape[1]}, P = {SUBSPACES}; dimensions differ in how much they vary, as",
            f"in learned vectors (rank to the power of -{UNEVEN}). New items: {NEW:.0%} are replaced by items of {NEW_GROUPS} new groups.",
            f"Turned: every vector is turned, by {ANGLE} radians in the plane that turns most. Changed is against the codes stored",
            "before the drift: what `encode` changes, the vectors themselves changed. Distortion is that of the codes by squared",
            f"length; recall@100 is the share of the exact {HITS} best of the pool among the {HITS} best by codes, then among the",
            f"{FETCHED} best by codes, which exact scores re-rank.",
            "",
            *table.markdown(HEADS, lines),
            "",
            f"Recall of {FETCHED} codes, cold less warm, over the {ASKED} queries: {'; '.join(apart)}.",
            "",
            "The same codes on a torch device; nothing leaves it before the best are known.",
            "",
            *table.markdown(DEVICE_HEADS, on),
            *([] if len(devices) > 1 else ["", "This machine has no GPU; with one, the table has another row."]),
            "",
            table.stamp(loads),
        ]
    )


def _try(drifted: Drifted, action: str, codebook: Codebook, stored: Codes) -> tuple[tuple[str, ...], np.ndarray]:
    """The line of an action, and the recall (Q,) of each query by re-ranked codes."""
    trained_s, fresh = _timed(lambda: refresh(codebook, drifted.vectors, action, 1))
    encoded_s, codes = (0.0, stored) if action == "none" else _timed(lambda: fresh.encode(drifted.vectors))
    decoded = fresh.decode(codes)
    distortion = float(np.square(drifted.vectors - decoded).sum(dtype=np.float64) / np.square(drifted.vectors).sum(dtype=np.float64))
    found = _best(drifted.queries, decoded, FETCHED)
    recalls = [_recalls(drifted.exact, found[:, :fetched]) for fetched in (HITS, FETCHED)]
    other = codes != stored
    line = (
        drifted.name,
        action,
        *(f"{seconds:.2f}" for seconds in (trained_s, encoded_s, trained_s + encoded_s)),
        f"{other.mean():.1%}",
        f"{other.any(axis=1).mean():.1%}",
        f"{distortion:.4f}",
        *(f"{recall.mean():.3f}" for recall in recalls),
    )
    return line, recalls[1]


def _device_line(device: torch.device, codebook: Codebook, drifted: Drifted) -> tuple[str, ...]:
    on = TorchCodebook(codebook, device)
    vectors, queries = (torch.from_numpy(array).to(device) for array in (drifted.vectors, drifted.queries))

    def search() -> tuple[torch.Tensor, torch.Tensor]:
        found = on.best(on.tables(queries), codes, FETCHED)
        return found[0].sum().item() and found  # waits for the device

    clock = time.process_time if device.type == "cpu" else time.perf_counter
    on.encode(vectors[:STEP]).sum().item()  # the first call prepares the device
    began = clock()
    codes = on.encode(vectors)
    codes.sum().item()
    encoded_s = clock() - began
    search()
    began = clock()
    scores, rows = search()
    searched_s = clock() - began
    expected = codebook.encode(drifted.vectors)
    same = np.array_equal(codes.cpu().numpy(), expected)
    exact = np.einsum("qd,qkd->qk", drifted.queries.astype(np.float64), codebook.decode(expected)[rows.cpu().numpy()])
    error = float(np.abs(scores.cpu().numpy() - exact).max())
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, one thread, CPU seconds"
    return name, f"{encoded_s:.2f}", f"{searched_s:.3f}", "yes" if same else "NO", f"{error:.1e}"


def _uneven(items: Items) -> Items:
    ranks = np.random.default_rng(1).permutation(items.vectors.shape[1]) + 1
    return Items(items.name, unit(items.vectors * ranks**-UNEVEN), items.category)


def _drifted(name: str, items: Items, steps: tuple[Callable[[Floats, np.random.Generator], Floats], ...]) -> Drifted:
    rng, vectors = np.random.default_rng(2), items.vectors
    for step in steps:
        vectors = step(vectors, rng)
    queries = users(Items(name, vectors, items.category), ASKED).short
    return Drifted(name, vectors, queries, _best(queries, vectors, HITS))


def _renewed(vectors: Floats, rng: np.random.Generator) -> Floats:
    count, d = int(NEW * len(vectors)), vectors.shape[1]
    centres = unit(rng.standard_normal((NEW_GROUPS, d)))
    renewed = vectors.copy()
    noise = 0.5 / d**0.5 * rng.standard_normal((count, d), dtype=np.float32)
    renewed[rng.choice(len(vectors), count, replace=False)] = unit(centres[rng.integers(0, NEW_GROUPS, count)] + noise)
    return renewed


def _turned(vectors: Floats, rng: np.random.Generator) -> Floats:
    d = vectors.shape[1]
    turn = rng.standard_normal((d, d))
    speeds, planes = np.linalg.eig(turn - turn.T)
    rotation = (planes * np.exp(speeds * ANGLE / np.abs(speeds).max())) @ np.linalg.inv(planes)
    return unit(vectors @ rotation.real.astype(np.float32))


def _recalls(exact: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The share (Q,) of the exact rows (Q, 100) that are among the found ones."""
    return np.array([np.isin(wanted, mine).mean() for wanted, mine in zip(exact, found, strict=True)])


def _best(queries: Floats, vectors: Floats, k: int) -> np.ndarray:
    """The rows (Q, k) of the best by inner product, best first."""
    rows, scores = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    for start in range(0, len(vectors), STEP):
        here = queries @ vectors[start : start + STEP].T
        top = np.argpartition(-here, min(k, here.shape[1]) - 1, axis=1)[:, :k]
        rows = np.concatenate([rows, top + start], axis=1)
        scores = np.concatenate([scores, np.take_along_axis(here, top, axis=1)], axis=1)
        order = np.argsort(-scores, axis=1)[:, :k]
        rows, scores = np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
    return rows


def _timed(work: Callable[[], object]) -> tuple[float, object]:
    began = time.process_time()
    result = work()
    return time.process_time() - began, result

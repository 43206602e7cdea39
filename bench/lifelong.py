"""Lifelong attention over codes beside exact attention over the same history: 10,000 events per user, one core."""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from bench import table, trained
from bench.index import one_core, tell
from bench.items import CATEGORIES, draw, unit
from models.codes.codebook import Codebook
from models.codes.lifelong import FIRST, KEPT, CodedHistories, CodeTable, LifelongHits, LifelongSearch, best
from models.index import ItemIndex
from research.codes.lifelong_torch import DeviceSearch

LENGTH, USERS, ROUNDS = 10_000, 32, 7
SUBSPACES, DIM, MODALITIES = 16, 64, 4
HEADS = 2
JUDGED = 64  # users whose overlap is taken
NARROW = 128
OVERLAPS = ("vectors", "error of codes", f"best {FIRST} by codes", f"best {NARROW} by codes", f"best {KEPT} by codes alone")


class Case(NamedTuple):
    """Items (N, d), and of each user a history of numbers (B, L) and a target (B, d)."""

    name: str
    vectors: np.ndarray
    numbers: np.ndarray
    targets: np.ndarray


class Attention:
    """Multi-head target attention as in SEMINAR's ESU, with drawn weights: what a model runs over what it is given."""

    def __init__(self, wide: int, dim: int) -> None:
        draw_ = torch.Generator().manual_seed(0)
        self.query, self.key, self.value, self.out = (torch.randn(n, dim, generator=draw_) / n**0.5 for n in (wide, wide, wide, dim))
        self.dim = dim

    @torch.inference_mode()
    def over(self, target: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        """Targets (B, wide) over histories (B, L, wide) -> (B, d), keys and values projected."""
        split = (len(target), -1, HEADS, self.dim // HEADS)
        query, key, value = ((of @ by).view(split).transpose(1, 2) for of, by in self._projected(target, history))  # (B, H, L, d/H)
        mixed = F.scaled_dot_product_attention(query, key, value)  # (B, H, 1, d/H)
        return mixed.transpose(1, 2).reshape(len(target), self.dim) @ self.out

    def _projected(self, target: torch.Tensor, history: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield target[:, None], self.query
        yield history, self.key
        yield history, self.value

    @torch.inference_mode()
    def folded(self, target: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        """The same for one user, (wide,) over (L, wide) -> (d,), with the least work: no event is projected."""
        asked = (target @ self.query).view(HEADS, -1)  # (H, d/H)
        folded = torch.einsum("whe,he->hw", self.key.view(len(self.key), HEADS, -1), asked)  # (H, wide)
        weights = (folded @ history.T / asked.shape[1] ** 0.5).softmax(1)  # (H, L)
        mixed = torch.einsum("hw,whe->he", weights @ history, self.value.view(len(self.value), HEADS, -1))  # (H, d/H)
        return mixed.flatten() @ self.out


def measure(options: argparse.Namespace, folder: Path) -> str:
    """The section of the page."""
    loads = [table.load()]
    with one_core():
        cases = list(_cases(options, folder))
        judged = [_overlap(case) for case in cases]
        narrow = _times(cases[0])
        wide = _times(_fused(options.items))
    loads.append(table.load())
    kept, vectors, numbers = SUBSPACES * LENGTH / 1e3, 4 * DIM * LENGTH / 1e6, 4 * LENGTH / 1e3
    return "\n".join(
        [
            "## Lifelong attention: 10,000 events per user",
            "",
            f"{USERS} users with {LENGTH:,} events each; an event is the number of one of {options.items:,} items. CPU milliseconds",
            f"(on cuda wall clock) per user, one core, median of {ROUNDS} rounds over all users. A search gathers the codes by",
            f"number ({SUBSPACES} bytes each), builds the target's look-up table, sums all scores by look-up, gathers the vectors of the",
            f"best {FIRST} and keeps the best {KEPT} by exact scores. All ways gather from the same table, unless vectors are `there",
            f"already`. Attention has {HEADS} heads; exact attention reads all {LENGTH:,} events, ours the {KEPT} found by the search.",
            "",
            f"An item is a vector of {DIM} dimensions (4 dimensions per code):",
            "",
            *table.markdown(("way", "CPU ms per user", "times ours"), narrow),
            "",
            f"An item is {MODALITIES} vectors of {DIM} dimensions concatenated, as SEMINAR fuses them (4 codes per modality):",
            "",
            *table.markdown(("way", "CPU ms per user", "times ours"), wide),
            "",
            f"Overlap@{KEPT} with exact scores of all {LENGTH:,} events, {DIM} dimensions. Error of codes: squared, share of the variance.",
            "",
            *table.markdown(OVERLAPS, judged),
            "",
            f"A user with {LENGTH:,} events takes {numbers:.0f} kB of item numbers: codes belong to items. Codes stored per user",
            f"would take {kept:.0f} kB, vectors {vectors:.2f} MB.",
            "",
            table.stamp(loads),
        ]
    )


def _cases(options: argparse.Namespace, folder: Path) -> Iterator[Case]:
    rng = np.random.default_rng(1)
    count = options.items
    clustered = draw("clustered", count).vectors
    for name, vectors in (("clustered", clustered), ("independent normal", rng.standard_normal((count, DIM), dtype=np.float32))):
        numbers = rng.integers(0, count, (JUDGED, LENGTH))
        near = vectors[numbers[:, 0]] if name == "clustered" else 0  # a target is like something in the history, where things are alike
        yield Case(name, vectors, numbers, unit(near + rng.standard_normal((JUDGED, DIM)) * (0.5 / DIM**0.5)))
    source = trained.catalogue(options, folder)
    events = np.resize(source.events, max(len(source.events), 2 * LENGTH))
    starts = np.linspace(0, len(events) - LENGTH - 1, JUDGED).astype(np.int64)
    numbers = events[starts[:, None] + np.arange(LENGTH)]
    yield Case(f"trained on {source.name}, histories of its users joined", source.vectors, numbers, source.vectors[events[starts + LENGTH]])


def _fused(count: int) -> Case:
    rng = np.random.default_rng(2)
    groups = rng.standard_normal((2_000, MODALITIES * DIM), dtype=np.float32)
    vectors = groups[rng.integers(0, len(groups), count)]
    for start in range(0, count, 100_000):
        vectors[start : start + 100_000] += 0.7 * rng.standard_normal(vectors[start : start + 100_000].shape, dtype=np.float32)
    numbers = rng.integers(0, count, (JUDGED, LENGTH))
    return Case("fused", vectors, numbers, vectors[numbers[:, 0]])


def _overlap(case: Case) -> tuple[str, ...]:
    codebook = Codebook.train(case.vectors, SUBSPACES, 0)
    used, numbers = np.unique(case.numbers, return_inverse=True)
    vectors = np.ascontiguousarray(case.vectors[used])
    codes = codebook.encode(vectors)
    error = float(np.square(vectors - codebook.decode(codes)).sum() / np.square(vectors - vectors.mean(0)).sum())
    histories = CodedHistories(numbers.ravel(), np.arange(JUDGED + 1) * LENGTH)
    shares = []
    for first in (FIRST, NARROW, KEPT):
        found = LifelongSearch(codebook, first, KEPT).search(case.targets, CodeTable(codes, vectors), histories)
        shares.append(f"{np.mean([_shared(case, user, found) for user in range(JUDGED)]):.3f}")
    row = (case.name, f"{error:.3f}", *shares)
    tell(" | ".join(row))
    return row


def _shared(case: Case, user: int, found: LifelongHits) -> float:
    wanted = best(case.vectors[case.numbers[user]] @ case.targets[user], KEPT)
    return len(np.intersect1d(wanted, found.positions[user, 0])) / KEPT


def _times(case: Case) -> list[tuple[str, ...]]:
    case = case._replace(numbers=case.numbers[:USERS], targets=case.targets[:USERS])
    codebook = Codebook.train(case.vectors, SUBSPACES, 0)
    codes = codebook.encode(case.vectors)
    items, search = CodeTable(codes, case.vectors), LifelongSearch(codebook)
    histories = CodedHistories(case.numbers.ravel(), np.arange(USERS + 1) * LENGTH)
    attention = Attention(case.vectors.shape[1], DIM)
    targets = torch.from_numpy(case.targets)
    rng = np.random.default_rng(3)
    bias, many = rng.random(histories.numbers.shape, dtype=np.float32), rng.permutation(case.targets)[:, None].repeat(8, 1)

    def over_found() -> None:
        found = search.search(case.targets, items, histories)
        at = found.positions[:, 0] + histories.offsets[:-1, None]  # (B, kept)
        vectors = items.vectors(histories.numbers[at].ravel()).reshape(USERS, KEPT, -1)
        attention.over(targets, torch.from_numpy(vectors))

    def each(work: Callable[[int, np.ndarray], Any], there: np.ndarray | None) -> Callable[[], None]:
        def run() -> None:
            for user in range(USERS):
                work(user, case.vectors.take(case.numbers[user], 0, mode="clip", out=buffer) if there is None else there[user])

        return run

    def scored(user: int, vectors: np.ndarray) -> None:
        best(vectors @ case.targets[user], KEPT)

    def folded(user: int, vectors: np.ndarray) -> None:
        attention.folded(targets[user], torch.from_numpy(vectors))

    def whole(user: int, vectors: np.ndarray) -> None:
        attention.over(targets[user : user + 1], torch.from_numpy(vectors)[None])

    buffer = np.empty((LENGTH, case.vectors.shape[1]), np.float32)
    there = case.vectors[case.numbers]
    ways: list[tuple[str, Callable[[], object]]] = [
        ("Everlong: search by codes", lambda: search.search(case.targets, items, histories)),
        ("Everlong: the same, then attention over what is found", over_found),
        ("Everlong: with a bias for each event", lambda: search.search(case.targets, items, histories._replace(bias=bias))),
        ("Everlong: 8 targets a user, for each", lambda: search.search(many, items, histories)),
        ("exact scores, best 32", each(scored, None)),
        ("exact scores, best 32, vectors there already", each(scored, there)),
        ("exact attention, keys and values projected", each(whole, None)),
        ("exact attention, keys and values projected, vectors there already", each(whole, there)),
        ("exact attention, projections folded into the query", each(folded, None)),
        ("exact attention, projections folded, vectors there already", each(folded, there)),
    ]
    if codebook.dim == DIM:
        ways.insert(2, _from_view(codebook, codes, case, search))
    if torch.cuda.is_available():
        ways.append(_on_cuda(codebook, codes, case, histories))
    return _rows(ways)


def _from_view(codebook: Codebook, codes: np.ndarray, case: Case, search: LifelongSearch) -> tuple[str, Callable[[], object]]:
    ids = [f"i{number}" for number in range(len(codes))]
    view = ItemIndex(codebook, case.vectors, ids, [f"c{number % CATEGORIES}" for number in range(len(codes))], codes=codes).look()
    histories = CodedHistories(view.numbers(ids)[case.numbers.ravel()], np.arange(USERS + 1) * LENGTH)
    return "Everlong: search by codes, items from a view of the index", lambda: search.search(case.targets, view, histories)


def _on_cuda(codebook: Codebook, codes: np.ndarray, case: Case, histories: CodedHistories) -> tuple[str, Callable[[], object]]:
    def to(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).cuda()

    search = DeviceSearch(codebook, to(codes), to(case.vectors))
    queries, numbers, offsets = to(case.targets)[:, None], to(histories.numbers), to(histories.offsets)

    def run() -> None:
        search.search(queries, numbers, offsets)
        torch.cuda.synchronize()

    return f"Everlong: search by codes, cuda, {torch.cuda.get_device_name()}", run


def _rows(ways: list[tuple[str, Callable[[], object]]]) -> list[tuple[str, ...]]:
    """Ways in turn, round after round, so that what else the machine does meets all of them."""
    taken: dict[str, list[float]] = {name: [] for name, _ in ways}
    for round_ in range(ROUNDS + 1):
        for name, run in ways:
            clock = time.perf_counter if "cuda" in name else time.process_time
            began = clock()
            run()
            if round_:
                taken[name].append((clock() - began) / USERS * 1e3 / (8 if "8 targets" in name else 1))
    ours = float(np.median(taken[ways[0][0]]))
    rows = [(name, f"{np.median(times):.3f}", f"{np.median(times) / ours:.1f}") for name, times in taken.items()]
    for row in rows:
        tell(" | ".join(row))
    return rows

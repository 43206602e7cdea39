"""A million items: 8 category searches and a global one per user, compared with common methods on the same items. One core."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import torch

from bench import rivals, table, trained
from bench.items import Items, Users, again, draw, users
from bench.rivals import HITS, Effort, Found, Way
from models.codes.codebook import Codebook
from models.index import ItemIndex, View

SUBSPACES, EXCLUDED = 16, 50
BATCH, BATCHES, SINGLES, JUDGED = 256, 4, 400, 128  # users per batch, batches, users one at a time, users whose recall is taken
PATIENCE_S = 10.0  # for one measurement of a slow way
LEAST, TUNING = 0.95, 32
LISTS = [Effort(32, 400), Effort(64, 400), Effort(96, 600), Effort(128, 1000), Effort(256, 1000)]
GRAPH = [Effort(fetch, fetch) for fetch in (200, 400, 600, 1000, 2000)]
OWN = ("items", "build s", "users/s", "us: categories", "us: pool", "p50 ms", "p99 ms", "recall@100: categories", "pool")
HEADS = ("way", "build s", "bytes per item", "users/s", "times slower", "p50 ms", "p99 ms", "recall@100: categories", "pool")


class Ours:
    """Everlong's index, as the refresh worker asks it."""

    name = "Everlong"

    def __init__(self, items: Items, bytes_an_item: float = 0.0) -> None:
        began = time.perf_counter()
        codebook = Codebook.train(items.vectors, SUBSPACES, 0)
        codes = codebook.encode(items.vectors)
        self.coded_s = time.perf_counter() - began
        began = time.perf_counter()
        self.index = ItemIndex(codebook, items.vectors, items.ids, items.categories, codes=codes)
        self.built_s = time.perf_counter() - began
        self._items = np.array([int(name[1:]) for name in self.index.look().names(np.arange(len(items)))])
        self.bytes_an_item, self.excluded = bytes_an_item, 0

    def categories(self, users: Users) -> Found:
        view, names = self.index.look(), [name for mine in users.names() for name in mine]
        exclude = self._exclude(view, users, users.categories.shape[1])
        found = view.search_categories(users.long.reshape(len(names), -1), names, HITS, exclude)
        return self._named(found.numbers).reshape(*users.categories.shape, HITS)

    def pool(self, users: Users) -> Found:
        view = self.index.look()
        return self._named(view.search_pool(users.short, HITS, self._exclude(view, users, 1)).numbers)

    def _named(self, numbers: np.ndarray) -> Found:
        return np.where(numbers >= 0, self._items[np.maximum(numbers, 0)], -1)

    def _exclude(self, view: View, users: Users, searches: int) -> list[np.ndarray] | None:
        """For each search the numbers of the items that its user must not get; their names are looked up once a user."""
        if not self.excluded:
            return None
        count = len(users.short)
        rows = np.random.default_rng(count).integers(0, len(self._items), count * self.excluded)
        numbers = view.numbers([f"i{number}" for number in rows.tolist()]).reshape(count, self.excluded)
        return [mine for mine in numbers for _ in range(searches)]


class Device:
    """Every vector compared, by torch on a device."""

    def __init__(self, ordered: rivals.Ordered, device: str) -> None:
        began = time.perf_counter()
        self._ordered, self._device = ordered, device
        self._vectors = torch.from_numpy(ordered.vectors).to(device)
        self.built_s, self.bytes_an_item = time.perf_counter() - began, 4.0 * ordered.dim
        self.name = f"torch on {torch.cuda.get_device_name() if device == 'cuda' else device}, every vector compared"

    @torch.inference_mode()
    def categories(self, users: Users) -> Found:
        queries = torch.from_numpy(users.long).to(self._device)
        found = torch.full((*users.categories.shape, HITS), -1, dtype=torch.int64, device=self._device)
        for user, place, first, last in self._ordered.searches(users):
            best = (self._vectors[first:last] @ queries[user, place]).topk(min(HITS, last - first)).indices
            found[user, place, : len(best)] = best + first
        return self._ordered.numbers(found.cpu().numpy())

    @torch.inference_mode()
    def pool(self, users: Users) -> Found:
        scores = torch.from_numpy(users.short).to(self._device) @ self._vectors.T
        return self._ordered.numbers(scores.topk(min(HITS, self._ordered.count), dim=1).indices.cpu().numpy())


class Truth(NamedTuple):
    """What exact search finds for the users whose recall is taken."""

    categories: Found
    pool: Found


class Figures(NamedTuple):
    """What one way came to, times in seconds a user, recall against exact search."""

    categories: float
    pool: float
    p50: float
    p99: float
    in_categories: float
    in_pool: float

    @property
    def rate(self) -> float:
        """Users a second."""
        return 1 / (self.categories + self.pool)

    def cells(self) -> tuple[str, ...]:
        """The last four columns."""
        return f"{self.p50 * 1e3:.2f}", f"{self.p99 * 1e3:.2f}", f"{self.in_categories:.3f}", f"{self.in_pool:.3f}"


def measure(options: argparse.Namespace, folder: Path) -> str:
    """The section of the page."""
    loads, count = [table.load()], options.items
    with one_core():
        items = draw("clustered", count)
        held = footprint(count)
        own, rows = _compared(items, held["measured"])
        for kind in ("loose", "trained"):
            data = draw(kind, count) if kind == "loose" else _trained(options, folder, count)
            mine = users(data, BATCH * BATCHES)
            truth = truth_of(rivals.Flat(rivals.Ordered(data)), mine)
            own.append(_own(data, "by size", Ours(data), mine, truth))
    loads.append(table.load())
    largest, median, groups = items.sizes.max(), int(np.median(items.sizes)), len(items.sizes)
    return "\n".join(
        [
            "## Index: 8 category searches and one of the whole pool, 100 hits each",
            "",
            f"{count:,} items of 64 dimensions in {groups:,} categories of Zipf sizes (the largest {largest:,}, the median {median:,}),",
            "unit vectors; `bench/items.py` says what `clustered`, `loose` and `trained` are. A user's categories are drawn by their",
            f"size, or evenly. users/s and microseconds per user are for batches of {BATCH}, p50 and p99 for {SINGLES} users one",
            "at a time. Recall is relative to exact search, for categories and pool separately. One core, except to build the graph.",
            "",
            *table.markdown(OWN, own),
            "",
            "The same searches with other methods, items `clustered`, categories by size; each tuned to recall 0.95 if it reaches it.",
            "",
            *table.markdown(HEADS, rows),
            "",
            *_memory(held),
            "",
            table.stamp(loads),
        ]
    )


def _compared(items: Items, bytes_an_item: float) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Rows of both tables for one set of items."""
    mine, even = users(items, BATCH * BATCHES), users(items, BATCH * BATCHES, by_size=False)
    ours = Ours(items, bytes_an_item)
    tell(f"index of {len(items):,} built in {ours.built_s:.0f} s, codes in {ours.coded_s:.0f} s")
    ordered = rivals.Ordered(items)
    flat = rivals.Flat(ordered)
    truth = truth_of(flat, mine)
    own = [_own(items, "by size", ours, mine, truth), _own(items, "evenly", ours, even, truth_of(flat, even))]
    figures = figures_of(ours, mine, truth)
    rows = [_row(ours, figures, figures), _row(flat, figures_of(flat, mine, truth), figures)]
    ours.excluded = EXCLUDED
    own.append((*_own(items, f"by size, {EXCLUDED} items excluded for each user", ours, mine, truth)[:-2], "", ""))
    for way in _rivals(ordered, judged(mine), truth):
        rows.append(_row(way, figures_of(way, mine, truth), figures))
        tell(" | ".join(rows[-1]))
    return own, rows


def _rivals(ordered: rivals.Ordered, asked: Users, truth: Truth) -> Iterator[Way]:
    """Each, tuned on some of the users whose recall is taken: efforts go up until it is 0.95, in categories and pool apart."""
    few, wanted = Users(*(array[:TUNING] for array in asked)), [found[:TUNING] for found in truth]

    def tune(way: Any, in_category: Sequence[Effort], in_pool: Sequence[Effort]) -> Way:
        rivals.tuned(way, "in_category", in_category, lambda: way.categories(few), wanted[0], LEAST)
        rivals.tuned(way, "in_pool", in_pool, lambda: way.pool(few), wanted[1], LEAST)
        return way

    ivf = rivals.IvfPq(ordered)
    for ivf.select in (False, True):
        yield tune(ivf, LISTS, LISTS)
    del ivf
    tell("building the graph")
    graph = rivals.graph(ordered)
    if graph is None:
        tell("usearch is not installed (extra bench): left out")
    else:
        yield tune(graph, GRAPH, [Effort(breadth, HITS) for breadth in (128, 256, 512, 1024, 2048)])
    del graph
    if torch.cuda.is_available():
        yield Device(ordered, "cuda")


def _own(items: Items, how: str, ours: Ours, mine: Users, truth: Truth) -> tuple[str, ...]:
    figures = figures_of(ours, mine, truth)
    times = f"{figures.rate:,.0f}", f"{figures.categories * 1e6:.0f}", f"{figures.pool * 1e6:.0f}"
    row = (f"{items.name}, {how}", f"{ours.built_s:.0f}", *times, *figures.cells())
    tell(" | ".join(row))
    return row


def _row(way: Way, figures: Figures, ours: Figures) -> tuple[str, ...]:
    return (
        way.name,
        f"{way.built_s:.0f}",
        f"{way.bytes_an_item:,.0f}",
        f"{figures.rate:,.0f}",
        f"{ours.rate / figures.rate:.1f}",
        *figures.cells(),
    )


def judged(mine: Users) -> Users:
    """The users whose recall is taken."""
    return Users(*(array[:JUDGED] for array in mine))


def truth_of(flat: rivals.Flat, mine: Users) -> Truth:
    """What they should get."""
    return Truth(flat.categories(judged(mine)), flat.pool(judged(mine)))


def figures_of(way: Way, mine: Users, truth: Truth) -> Figures:
    """Time and recall of one way; a slow one is measured on fewer users."""
    asked = judged(mine)
    recalls = rivals.recall(way.categories(asked), truth.categories), rivals.recall(way.pool(asked), truth.pool)
    parts = [Users(*(array[start : start + BATCH] for array in mine)) for start in range(0, len(mine.short), BATCH)]
    categories, pool = (min(timed(search, parts)) / len(parts[0].short) for search in (way.categories, way.pool))
    one = [Users(*(array[user : user + 1] for array in mine)) for user in range(min(SINGLES, len(mine.short)))]
    single = timed(lambda user: (way.categories(user), way.pool(user)), one, least=20)
    return Figures(categories, pool, *np.quantile(single, (0.5, 0.99)), *recalls)


def timed(search: Callable[[Users], object], parts: list[Users], least: int = 1) -> list[float]:
    """Seconds of each; no more of them after 10 s, but so many at least."""
    taken: list[float] = []
    for part in parts:
        began = time.perf_counter()
        search(part)
        taken.append(time.perf_counter() - began)
        if sum(taken) > PATIENCE_S and len(taken) >= least:
            break
    return taken


def _trained(options: argparse.Namespace, folder: Path, count: int) -> Items:
    catalogue = trained.catalogue(options, folder)
    return again(catalogue.vectors, catalogue.categories, count)


def footprint(count: int) -> dict[str, Any]:
    """Bytes an item, as measured in a process of its own, and by the formula."""
    command = [sys.executable, "-m", "bench.footprint", str(count)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def _memory(told: dict[str, Any]) -> list[str]:
    parts = ", ".join(f"{name} {value:,.1f}" for name, value in told["formula"].items() if value)
    formula = sum(told["formula"].values())
    return [
        f"Memory of the index: {told['measured']:,.0f} bytes per item measured (resident memory, {told['rows']} items, all of them in the",
        f"base), {formula:,.0f} by the formula `bytes_per_item`: {parts}.",
        f"That is {formula / 100:.1f} GB for 10 and {formula / 10:.0f} GB for 100 million items; while a compaction runs, up to twice the",
        f"arrays. At the highest while building: {told['peak']:,.0f} bytes per item. What the table says of others is without names.",
    ]


@contextmanager
def one_core() -> Iterator[None]:
    """faiss and torch with one thread each."""
    before = faiss.omp_get_max_threads(), torch.get_num_threads()
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before[0])
        torch.set_num_threads(before[1])


def tell(what: str) -> None:
    """A line of progress."""
    print(f"  {what}", flush=True)

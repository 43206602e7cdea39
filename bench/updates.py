"""An index that changes while it is searched: 1,000 updates a second, every one checked, every hit checked."""

import argparse
import gc
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

import numpy as np

from bench import table
from bench.index import SUBSPACES, one_core, tell
from bench.items import Items, Users, draw, unit, users
from bench.rivals import HITS
from models.codes.codebook import Codebook
from models.index import Change, Delete, ItemIndex, Upsert, View
from stream.workers.context import SWITCH_S

RATE, EVERY_S = 1_000, 0.02
KINDS = ("new", "other vector", "other category", "deleted")
ASKED = 2_000  # different users that search in turn
NEAREST = 5  # hits among which a changed item must be, with its own vector
EXACT = 1e-4
HEADS = ("", "seconds", "searches/s", "p50 ms", "p99 ms", "worst ms", "hits checked", "violations")


class State(NamedTuple):
    """What an item was from one batch of changes on."""

    batch: int
    category: int  # -1: deleted
    vector: np.ndarray


class Truth:
    """What every item is, and was. A batch is `begun` before it is applied and `done` after: a view lies between two batches.

    Written by the thread that applies, read by the one that checks: an item's arrays are set before `begun` says so, and what an
    item was before stays in `past`.
    """

    def __init__(self, items: Items, more: int) -> None:
        count = len(items)
        self.vectors = np.concatenate([items.vectors, np.zeros((more, items.vectors.shape[1]), np.float32)])
        self.category = np.concatenate([items.category, np.full(more, -1)])
        self.changed = np.zeros(count + more, np.int64)  # the batch that changed an item last, 0: none
        self.past: dict[int, list[State]] = defaultdict(list)
        self.begun = self.done = 0

    def change(self, batch: int, item: int, category: int, vector: np.ndarray) -> None:
        """An item becomes what it is from `batch` on."""
        if not self.past[item]:
            self.past[item].append(State(0, int(self.category[item]), self.vectors[item].copy()))
        self.past[item].append(State(batch, category, vector))
        self.changed[item] = batch
        self.category[item], self.vectors[item] = category, vector

    def wrong(self, items: np.ndarray, scores: np.ndarray, queries: np.ndarray, asked: np.ndarray, since: int, until: int) -> int:
        """How many of hits (n,) were at no time between batch `since` (done) and `until` (begun) what they are said to be.

        `queries` (n, d) and categories `asked` (n,), -1 for the whole pool, are those of each hit.
        """
        category, products = self.category[items], np.einsum("nd,nd->n", self.vectors[items], queries)
        right = (category >= 0) & ((asked < 0) | (asked == category)) & (np.abs(products - scores) < EXACT)
        doubtful = ~right | (self.changed[items] > since)  # looked at after the search: it may have changed since then
        count = 0
        for at in np.flatnonzero(doubtful).tolist():
            states = list(self.past.get(int(items[at]), ())) or [State(0, int(category[at]), self.vectors[items[at]])]
            count += not any(
                state.batch <= until
                and (number + 1 == len(states) or states[number + 1].batch > since)
                and state.category >= 0
                and asked[at] in (-1, state.category)
                and abs(float(state.vector @ queries[at]) - float(scores[at])) < EXACT
                for number, state in enumerate(states)
            )
        return count


class Step(NamedTuple):
    """One change of the plan: what to do with which item."""

    kind: str
    item: int
    category: int
    change: Change


class Applied(NamedTuple):
    """A batch of changes that was applied, and what its items were before it."""

    turn: int
    sent: float  # when `apply` was called, seconds of the clock that never goes back
    steps: list[Step]
    before: list[State]


class Searched(NamedTuple):
    """What a searching thread did, and per change the seconds until it saw it."""

    seconds: float
    times: list[float]
    hits: int
    violations: int
    visible: dict[str, list[float]]
    unseen: int  # changes that it did not see


class Updated(NamedTuple):
    """What the changing thread did."""

    seconds: float
    applied: list[float]  # seconds of each `apply`
    late: float  # how far behind its clock it was at the worst


def measure(options: argparse.Namespace, folder: Path) -> str:
    """The section of the page."""
    loads, seconds = [table.load()], options.update_seconds
    with one_core():
        items = draw("clustered", options.items)
        codebook = Codebook.train(items.vectors, SUBSPACES, 0)
        index = ItemIndex(codebook, items.vectors, items.ids, items.categories, codes=codebook.encode(items.vectors))
        plan = planned(items, codebook, int(RATE * seconds))
        truth, asked = Truth(items, sum(step.kind == "new" for step in plan)), users(items, ASKED)
        share_python()
        tell("searching while nothing changes")
        rest = [_search(index, truth, asked, threading.Event(), SimpleQueue(), min(10.0, seconds / 6))]
        tell(f"searching while {RATE:,} items per second change")
        stop, compactions, sent = threading.Event(), [], SimpleQueue[Applied]()
        with ThreadPoolExecutor(3) as pool:
            busy = pool.submit(_search, index, truth, asked, stop, sent, seconds + 60)
            compacting = pool.submit(_compact, index, stop, compactions)
            try:
                updated = _update(index, truth, plan, sent)
            finally:
                stop.set()
            searched = busy.result()
            compacting.result()
        index.compact()
        tell("searching while nothing changes, again")
        rest.append(_search(index, truth, asked, threading.Event(), SimpleQueue(), min(10.0, seconds / 6)))
    loads.append(table.load())
    return "\n".join([*_text(options, rest, searched, updated, compactions), "", table.stamp(loads)])


def share_python() -> None:
    """Garbage collection and the hand-over of Python's lock as workers have them."""
    gc.freeze()
    sys.setswitchinterval(SWITCH_S)


def planned(items: Items, codebook: Codebook, count: int, seed: int = 5) -> list[Step]:
    """`count` changes, the four kinds in turn, each of an item drawn among those there are; the codes are made beforehand."""
    rng = np.random.default_rng(seed)
    kinds = [KINDS[number % len(KINDS)] for number in range(count)]
    drawn = rng.permutation(len(items))[: min(len(items), count)]  # distinct: none is changed after it was deleted
    names = [f"c{number}" for number in range(len(items.sizes))]
    category = np.array(items.category)
    like = rng.integers(0, len(items), count)  # what a new vector resembles
    vectors = unit(items.vectors[like] + 0.3 / items.vectors.shape[1] ** 0.5 * rng.standard_normal((count, items.vectors.shape[1])))
    same = [number for number, kind in enumerate(kinds) if kind == "other category"]
    vectors[same] = items.vectors[drawn[np.array(same) % len(drawn)]]
    codes, new = codebook.encode(vectors), len(items)
    steps = []
    for number, kind in enumerate(kinds):
        item = int(drawn[number % len(drawn)])
        into = int(category[item] if kind == "other vector" else category[like[number]])
        if kind == "new":
            item, new = new, new + 1
        if kind == "deleted":
            steps.append(Step(kind, item, -1, Delete(f"i{item}")))
        else:
            upsert = Upsert(f"i{item}", names[into], vectors[number], codes[number], codebook.generation)
            steps.append(Step(kind, item, into, upsert))
    return steps


def _search(index: ItemIndex, truth: Truth, asked: Users, stop: threading.Event, sent: SimpleQueue[Applied], seconds: float) -> Searched:
    """One user at a time. Between two of them it looks for the changes of each batch `sent`; its checks are not in the times."""
    names, times, hits, violations, unseen, end = asked.names(), [], 0, 0, 0, time.perf_counter() + seconds
    visible: dict[str, list[float]] = {kind: [] for kind in KINDS}
    began = time.perf_counter()
    while not stop.is_set() and time.perf_counter() < end:
        unseen += _looked_for(index, sent, visible)
        user = len(times) % len(names)
        since, start = truth.done, time.perf_counter()
        view = index.look()
        category = view.search_categories(asked.long[user], names[user], HITS)
        pool = view.search_pool(asked.short[user, None], HITS)
        times.append(time.perf_counter() - start)
        until = truth.begun
        numbers = np.concatenate([category.numbers, pool.numbers])
        rows, columns = np.nonzero(numbers >= 0)
        queries = np.concatenate([asked.long[user], asked.short[user, None]])[rows]
        wanted = np.append(asked.categories[user], -1)[rows]
        found = np.array([int(name[1:]) for name in view.names(numbers[rows, columns])])
        scores = np.concatenate([category.scores, pool.scores])[rows, columns]
        violations += truth.wrong(found, scores, queries, wanted, since, until)
        violations += len(rows) - len(np.unique(rows * len(truth.changed) + found))  # none twice
        hits += len(rows)
    unseen += _looked_for(index, sent, visible)
    return Searched(time.perf_counter() - began, times, hits, violations, visible, unseen)


def _looked_for(index: ItemIndex, sent: SimpleQueue[Applied], visible: dict[str, list[float]]) -> int:
    """Look for all changes that were sent and not looked for yet, and note how long each took; how many were not seen."""
    unseen = 0
    while True:
        try:
            batch = sent.get_nowait()
        except Empty:
            return unseen
        unseen += _unseen(index.look(), batch.steps, batch.before, batch.turn)
        seen = time.perf_counter() - batch.sent
        for step in batch.steps:
            visible[step.kind].append(seen)


def _update(index: ItemIndex, truth: Truth, plan: list[Step], done: SimpleQueue[Applied]) -> Updated:
    """Batches at a steady rate, each handed on once it was applied."""
    at_once = int(RATE * EVERY_S)
    applied, late, began = [], 0.0, time.perf_counter()
    for batch, start in enumerate(range(0, len(plan), at_once), 1):
        steps = plan[start : start + at_once]
        due = began + batch * EVERY_S
        time.sleep(max(0.0, due - time.perf_counter()))
        late = max(late, time.perf_counter() - due)
        before = [State(batch - 1, int(truth.category[step.item]), truth.vectors[step.item].copy()) for step in steps]
        for step in steps:
            truth.change(
                batch, step.item, step.category, step.change.vector if isinstance(step.change, Upsert) else truth.vectors[step.item]
            )
        truth.begun = batch
        sent = time.perf_counter()
        index.apply([step.change for step in steps])
        applied.append(time.perf_counter() - sent)
        truth.done = batch
        done.put(Applied(batch, sent, steps, before))
    return Updated(time.perf_counter() - began, applied, late)


def _unseen(view: View, steps: list[Step], before: list[State], turn: int) -> int:
    """How many changes of a batch a view does not show: by number, by category, and by a search with the item's own vector.

    Each is searched for in its category (a deleted one in the category it had), one of them, in turn, in the whole pool too.
    """
    numbers, names = view.numbers([f"i{step.item}" for step in steps]), [f"i{step.item}" for step in steps]
    own = np.stack([step.change.vector if isinstance(step.change, Upsert) else old.vector for step, old in zip(steps, before, strict=True)])
    kept = np.array([step.category for step in steps])
    of = [f"c{step.category if step.category >= 0 else old.category}" for step, old in zip(steps, before, strict=True)]
    found, turn = view.search_categories(own, of, NEAREST), turn % len(steps)
    pool = view.search_pool(own[turn, None], NEAREST)
    here, wrong = view.category_numbers(numbers), np.zeros(len(steps), np.bool_)
    for at, hits in [*enumerate(zip(found.numbers, found.scores, strict=True)), (turn, (pool.numbers[0], pool.scores[0]))]:
        hit = [score for name, score in zip(view.names(hits[0][hits[0] >= 0]), hits[1].tolist(), strict=False) if name == names[at]]
        if kept[at] < 0:
            wrong[at] |= numbers[at] >= 0 or bool(hit)
        else:
            there = numbers[at] >= 0 and here[at] == view.category_number(of[at])
            wrong[at] |= not (there and len(hit) == 1 and abs(hit[0] - float(own[at] @ own[at])) < EXACT)
    return int(wrong.sum())


def _compact(index: ItemIndex, stop: threading.Event, taken: list[float]) -> None:
    """As the refresh worker does: whenever it is due."""
    while not stop.wait(0.1):
        if index.compaction_due:
            began = time.perf_counter()
            index.compact()
            taken.append(time.perf_counter() - began)


def _text(options: argparse.Namespace, rest: list[Searched], busy: Searched, updated: Updated, compactions: list[float]) -> list[str]:
    changes = sum(map(len, busy.visible.values()))
    ratio = np.quantile(busy.times, 0.99) / np.quantile([*rest[0].times, *rest[1].times], 0.99)
    kinds = [
        (kind, f"{len(seen):,}", f"{np.median(seen) * 1e3:.1f}", f"{np.quantile(seen, 0.99) * 1e3:.1f}", f"{max(seen) * 1e3:.1f}")
        for kind, seen in busy.visible.items()
        if seen
    ]
    return [
        "## Updates: an index that changes while it is searched",
        "",
        f"{options.items:,} items of 64 dimensions. One thread applies {RATE:,} changes per second, batched every {EVERY_S * 1e3:.0f} ms;",
        f"one searches for one user at a time (8 categories and the whole pool, {HITS} hits each); one compacts when needed. Between two",
        "searches the searching thread looks for each applied change: by number, by category, and by a search of its category",
        "with its own vector, for one change per batch also in the whole pool. Each hit of each search is checked: the item exists, it is",
        "in the requested category, no item appears twice, and its score is that of the vector it had at that moment.",
        "",
        *table.markdown(
            HEADS,
            [
                _row("idle, before", rest[0]),
                _row(f"{changes / updated.seconds:,.0f} changes per second", busy),
                _row("idle, after", rest[1]),
            ],
        ),
        "",
        f"p99 while items change: {ratio:.2f} times that of the idle index. Changes not visible: {busy.unseen} of {changes:,}.",
        f"`apply` of a batch: {np.median(updated.applied) * 1e3:.1f} ms, at worst {max(updated.applied) * 1e3:.1f} ms; at worst",
        f"{updated.late * 1e3:.0f} ms behind schedule. {len(compactions)} compactions, {np.mean(compactions or [0]):.1f} s each.",
        "",
        *table.markdown(("change", "how many", "ms until visible: median", "p99", "worst"), kinds),
    ]


def _row(name: str, done: Searched) -> tuple[str, ...]:
    p50, p99, worst = (f"{value * 1e3:.2f}" for value in (*np.quantile(done.times, (0.5, 0.99)), max(done.times)))
    return name, f"{done.seconds:.0f}", f"{len(done.times) / done.seconds:,.0f}", p50, p99, worst, f"{done.hits:,}", f"{done.violations:,}"

"""The next click after a query: a temporal split, the whole catalogue ranked, beside popularity and BM25.

Held out is every click from the cut on that is its user's first after a query; it is asked for with the rows just before
it. Scores that tie share their mean rank, once popularity has broken the ties of BM25, which has many.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import torch

from features.event_time import DAY_MS
from features.events import Event, Item
from features.history import Deeds, Moment, deeds, moments
from features.rows import pair
from models.config import Config
from models.encoding.contents import trim
from models.encoding.histories import Histories, build, distinct
from models.network.psu import ItemVectors, Psu
from models.network.search import NextPairs, Steps
from research.errors import NoTestError
from research.mechanisms.inputs import SilentPsu
from research.relevance.lexical import Bm25
from research.relevance.measures import DRAWS, Measured, bootstrap, measure
from research.relevance.report import RelevanceReport, report
from research.relevance.seminar import TUNING, Tell, Trained, train_seminar

SEMINAR, POPULAR, SAME_QUERY = "SEMINAR", "most popular", "popular after the same query"
TITLES, TITLES_AND_QUERIES = "BM25 of titles", "BM25 of titles and the queries that led there"
METRICS = ("MRR", "hit@10")
DEPTH = 2048  # where the catalogue is larger, GSU and ESU re-score so many items, the best by PSU and popularity
BATCH = 32
_RECENT_MS = 7 * DAY_MS


class Case(NamedTuple):
    """A held-out click: who, after which query, on which position of the catalogue."""

    user: str
    query: str
    target: int


class Task(NamedTuple):
    """A file cut in two."""

    done: Mapping[str, Deeds]
    catalogue: list[Item]
    cut_ms: int
    cases: list[Case]
    histories: Histories  # of the cases
    clicks: list[tuple[int, str, int]]  # before the cut: time (ms), query or "", position of the item


def task(events: Iterable[Event], items: Iterable[Item], config: Config, holdout: float) -> Task:
    """Cut at the last `holdout` share of the clicks. The catalogue, titles included, is known throughout; clicks are not."""
    done = deeds(events)
    catalogue = sorted({item.item_id: item for item in items}.values(), key=lambda item: item.item_id)
    positions = {item.item_id: at for at, item in enumerate(catalogue)}
    times = np.sort([event.ts for deed in done.values() for event in deed.events])
    if not len(times):
        raise NoTestError("the file has no click")
    cut_ms = int(times[min(len(times) - 1, int(len(times) * (1 - holdout)))])
    asked = list(moments(dict(done), from_ts=cut_ms))
    histories, of = build(asked, positions, config)
    whose = [asked[number] for number in of.tolist()]
    kept = [n for n, moment in enumerate(whose) if histories.asked[n] >= 0 and _first_after_query(moment)]
    cases = [Case(whose[n].user, _newest_query(whose[n]), int(histories.target[n])) for n in kept]
    clicks = sorted(_clicks(done, positions, cut_ms))
    if not cases or not any(query for _, query, _ in clicks):
        raise NoTestError("no click follows a query before the cut, or none from it on")
    return Task(done, catalogue, cut_ms, cases, _only(histories, np.array(kept)), clicks)


def next_click_report(  # noqa: PLR0913
    data: str,
    events: Iterable[Event],
    items: Iterable[Item],
    config: Config,
    seeds: Sequence[int],
    *,
    tuning: int = TUNING,
    holdout: float = 0.2,
    ablations: bool = True,
    progress: Tell = lambda *_: None,
) -> RelevanceReport:
    """Train and measure once a seed; the split is the same for all."""
    todo = task(events, items, config, holdout)
    fixed = {method: ranks(found, todo.cases) for method, found in baselines(todo).items()}
    runs = [fixed | _trained_ranks(todo, config, tuning, seed, ablations, progress) for seed in seeds]
    _, users = np.unique([case.user for case in todo.cases], return_inverse=True)
    samples = [bootstrap(users, DRAWS, np.random.default_rng(0))] * len(seeds)
    sizes = [len(users)] * len(seeds)
    measured: dict[str, list[Measured]] = {}
    for method in runs[0]:
        values = [(1 / run[method], (run[method] <= 10).astype(float)) for run in runs]
        for metric in range(len(METRICS)):
            statistics = [lambda at, mine=mine[metric]: float(mine[at].mean()) for mine in values]
            measured.setdefault(method, []).append(measure(statistics, samples, sizes))
    cold = len({case.target for case in todo.cases} - {at for _, _, at in todo.clicks})
    notes = [
        f"{len(todo.clicks):,} clicks are before the cut; of the newest {holdout:.0%}, {len(todo.cases):,} by {users.max() + 1:,} users "
        f"are the first after a query. {len(todo.catalogue):,} items are ranked; {cold} of the targets were not clicked before.",
        "Brackets: 95 % bootstrap intervals over users.",
    ]
    without = [method for method in measured if method.startswith(f"{SEMINAR} without")]
    return report(data, notes, METRICS, seeds, measured, (SEMINAR, (POPULAR, SAME_QUERY, TITLES, TITLES_AND_QUERIES, *without)))


def baselines(todo: Task) -> dict[str, np.ndarray]:
    """Scores (cases, V) that need no training."""
    size = len(todo.catalogue)
    counts = np.bincount([at for _, _, at in todo.clicks], minlength=size).astype(float)
    recent = np.bincount([at for ts, _, at in todo.clicks if ts >= todo.cut_ms - _RECENT_MS], minlength=size).astype(float)
    popular, queries = counts / (counts.sum() + 1), [case.query for case in todo.cases]
    after: defaultdict[str, Counter[int]] = defaultdict(Counter)
    led: list[list[str]] = [[item.title] for item in todo.catalogue]
    for _, query, at in todo.clicks:
        if query:
            after[query][at] += 1
            led[at].append(query)
    same = np.zeros((len(queries), size))
    for n, query in enumerate(queries):
        for at, count in after[query].items():
            same[n, at] = count
    titles, both = Bm25([item.title for item in todo.catalogue]), Bm25([" ".join(said) for said in led])
    return {
        POPULAR: np.tile(popular, (len(queries), 1)),
        "most popular, last 7 days": np.tile(recent / (recent.sum() + 1) + 1e-6 * popular, (len(queries), 1)),
        SAME_QUERY: same + popular,
        TITLES: np.stack([titles.scores(query) for query in queries]) + 1e-6 * popular,
        TITLES_AND_QUERIES: np.stack([both.scores(query) for query in queries]) + 1e-6 * popular,
    }


def ranks(scores: np.ndarray, cases: Sequence[Case]) -> np.ndarray:
    """The rank from 1 of each case's target (cases,); -inf marks what was not retrieved: then the rank is infinite."""
    own = scores[np.arange(len(cases)), [case.target for case in cases]][:, None]  # (cases, 1)
    found = (scores > own).sum(1) + ((scores == own).sum(1) + 1) / 2  # (cases,)
    return np.where(np.isneginf(own[:, 0]), np.inf, found)


@torch.inference_mode()
def model_scores(trained: Trained, todo: Task, *, match_only: bool = False) -> np.ndarray:
    """The logits (cases, V) of the next pair, -inf beyond DEPTH; with `match_only` the PSU's cos(q, e) for all."""
    model, table, histories = trained.model, trained.contents, todo.histories
    starts = range(0, len(table.item), 4096)
    parts = [model.psu.items(table.take(np.arange(at, min(at + 4096, len(table.item))))) for at in starts]
    items = ItemVectors(*(torch.cat(arrays) for arrays in zip(*parts, strict=True)))
    counts = np.bincount([at for _, _, at in todo.clicks], minlength=len(table.item)) + 1.0
    prior = torch.from_numpy(np.log(counts / counts.sum())).float()  # (V,)
    scores = np.full((len(todo.cases), len(table.item)), -np.inf, np.float32)
    for start in range(0, len(todo.cases), BATCH):
        rows = np.arange(start, min(start + BATCH, len(todo.cases)))
        batch = histories.batch(rows)
        texts, (text, asked) = distinct(batch.text, batch.asked)
        queries = model.psu.queries(trim(histories.words[texts]))
        every = torch.arange(len(table.item)).expand(len(rows), -1)  # (B, V)
        query = torch.from_numpy(asked)  # (B,)
        matched = model.match(items, queries, NextPairs(every, query))  # (B, V)
        if match_only:
            scores[rows] = matched.numpy()
            continue
        chosen = every if len(table.item) <= DEPTH else (matched + prior).topk(DEPTH, dim=1).indices  # (B, C)
        steps = Steps(torch.from_numpy(batch.item), torch.from_numpy(text))
        logits = model.logits(items, queries, steps, NextPairs(chosen, query))  # (B, C)
        scores[rows[:, None], chosen.numpy()] = logits.numpy()
    return scores


def _trained_ranks(todo: Task, config: Config, tuning: int, seed: int, ablations: bool, progress: Tell) -> dict[str, np.ndarray]:
    """The ranks (cases,) of each variant: its configuration, its passes over the next pair alone, and its search unit."""
    pretraining = config.training.pretraining
    variants: dict[str, tuple[Config, int, type[Psu]]] = {SEMINAR: (config, tuning, Psu)}
    if ablations:
        unpretrained, unaligned = (msgspec.structs.replace(pretraining, **part) for part in ({"epochs": 0}, {"alignment": 0.0}))
        variants |= {
            f"{SEMINAR} without pretraining": (config.replace(pretraining=unpretrained), pretraining.epochs + tuning, Psu),
            f"{SEMINAR} without alignment": (config.replace(pretraining=unaligned), tuning, Psu),
            f"{SEMINAR} without queries": (config, tuning, SilentPsu),
        }
    found: dict[str, np.ndarray] = {}
    for name, (changed, passes, psu) in variants.items():
        tell: Tell = lambda phase, *told, name=name: progress(f"{name}: {phase}", *told)  # noqa: E731
        trained = train_seminar(todo.done, todo.catalogue, changed, todo.cut_ms, seed, passes, tell, build_psu=psu)
        found[name] = ranks(model_scores(trained, todo), todo.cases)
        if name == SEMINAR:
            found["PSU alone, cos(q, e)"] = ranks(model_scores(trained, todo, match_only=True), todo.cases)
    return found


def _first_after_query(moment: Moment) -> bool:
    queries, recent = moment.row.queries, moment.row.recent
    return bool(queries) and (not recent or recent[-1].ts < queries[-1].ts)


def _newest_query(moment: Moment) -> str:
    return moment.row.queries[-1].text


def _clicks(done: Mapping[str, Deeds], positions: Mapping[str, int], cut_ms: int) -> Iterable[tuple[int, str, int]]:
    """Each event before the cut on an item of the catalogue, with the query it followed."""
    for deed in done.values():
        queries = [query for query in deed.queries if query.ts < cut_ms]
        for event in deed.events:
            if event.ts < cut_ms and event.item in positions:
                followed = pair(event, queries).pair
                yield event.ts, followed.text if followed else "", positions[event.item]


def _only(histories: Histories, kept: np.ndarray) -> Histories:
    """The examples at the given positions."""
    start, size, target, asked = (array[kept] for array in (histories.start, histories.size, histories.target, histories.asked))
    return histories._replace(start=start, size=size, target=target, asked=asked)

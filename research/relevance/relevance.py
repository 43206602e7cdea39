"""Query-item relevance on graded pairs: the PSU's text side, trained on some queries, asked about others (SEMINAR, query-item relevance).

Beside it BM25 and, where the extra `sentences` is installed, a frozen sentence encoder: neither saw a grade, the PSU did.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from models.config import Config, NetworkConfig, PretrainingConfig
from models.encoding.contents import Contents, Widths, padded, pieces, query_words, trim
from models.encoding.vocabulary import FIRST, UNKNOWN
from models.network.psu import Psu
from models.training.pretraining import apart, relevance
from research.relevance.judgements import Judgements, split
from research.relevance.lexical import Bm25
from research.relevance.measures import DRAWS, Measured, Statistic, auc, bootstrap, measure, spearman
from research.relevance.report import RelevanceReport, report

PSU, BM25, ENCODER = "PSU", "BM25", "sentence encoder, frozen"
BOTH = "PSU and sentence encoder, sum of cosines"
METRICS = ("AUC", "Spearman", "AUC within a query")
RELEVANT = 0.75  # of the range of grades: from here on a pair counts as relevant
CHUNK = 4096
Tell = Callable[[str, int, int, float], None]


class Vectors(NamedTuple):
    """What a sentence encoder made of all queries and titles of a file."""

    queries: np.ndarray  # (queries, Dt) float32
    titles: np.ndarray  # (titles, Dt) float32


def relevance_report(
    data: str,
    judgements: Judgements,
    config: Config,
    seeds: Sequence[int],
    vectors: Vectors | None = None,
    *,
    holdout: float = 0.2,
    ablations: bool = True,
    progress: Tell = lambda *_: None,
) -> RelevanceReport:
    """Train and measure once a seed: it draws the queries held out (a share `holdout` of them) as well as the weights."""
    runs, tests = [], []
    for seed in seeds:
        training, test = split(judgements, holdout, seed)
        runs.append(scores(training, test, config, seed, vectors, ablations, progress))
        tests.append(test)
    samples = [bootstrap(_groups(test), DRAWS, np.random.default_rng(seed)) for seed, test in zip(seeds, tests, strict=True)]
    sizes = [len(test.grade) for test in tests]
    measured: dict[str, list[Measured]] = {}
    for method in runs[0]:
        told = [_statistics(run[method], test) for run, test in zip(runs, tests, strict=True)]
        measured[method] = [measure([one[metric] for one in told], samples, sizes) for metric in range(len(METRICS))]
    grade = min(judgements.grade[judgements.gain >= RELEVANT])
    relevant = np.mean([(test.gain >= RELEVANT).mean() for test in tests])
    notes = [
        f"{len(judgements.grade):,} pairs of {len(judgements.queries):,} queries and {len(judgements.titles):,} titles; "
        f"{holdout:.0%} of the queries are held out, drawn by the seed ({sizes[0]:,} pairs at the first).",
        f"AUC: pairs of grade {grade:g} or more are positive ({relevant:.0%} of the test pairs). Brackets: 95 % bootstrap over queries.",
    ]
    return report(data, notes, METRICS, seeds, measured, (PSU, (BM25, ENCODER)))


def scores(
    training: Judgements,
    test: Judgements,
    config: Config,
    seed: int,
    vectors: Vectors | None = None,
    ablations: bool = True,
    progress: Tell = lambda *_: None,
) -> dict[str, np.ndarray]:
    """The score of each held-out pair (n,) by each method."""
    found = {BM25: _bm25(test)}
    if vectors is not None:
        found[ENCODER] = (vectors.queries[test.query] * vectors.titles[test.title]).sum(1)
    for name, changed, given in _variants(config, vectors, ablations):
        torch.manual_seed(seed)
        network, pretraining = changed.network, changed.training.pretraining
        psu = Psu(network, FIRST, Widths(text=1 if given is None else given.titles.shape[1]))
        titles, queries = _titles(training.titles, network, given), query_words(training.queries, network)
        if pretraining.epochs:
            learn(psu, pretraining, titles, queries, given, training, seed, lambda *told, name=name: progress(name, *told))
        found[name] = cosines(psu.eval(), titles, queries, given, test)
    if ENCODER in found:
        found[BOTH] = found[PSU] + found[ENCODER]
    return found


def learn(
    psu: Psu,
    config: PretrainingConfig,
    titles: Contents,
    queries: np.ndarray,
    given: Vectors | None,
    training: Judgements,
    seed: int,
    progress: Callable[[int, int, float], None] = lambda *_: None,
) -> None:
    """The relevance objective over graded pairs: a pair's weight is its gain, its negatives are titles not judged for its query."""
    psu.train()
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.Adam(psu.parameters(), lr=config.learning_rate, fused=True)
    steps = config.epochs * -(-len(training.query) // config.positions)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=max(1, steps), pct_start=0.1)
    step = 0
    for _ in range(config.epochs):
        order = rng.permutation(len(training.query))
        for start in range(0, len(order), config.positions):
            batch = training.part(order[start : start + config.positions])
            query, title = torch.from_numpy(batch.query), torch.from_numpy(batch.title)  # (n,) each
            asked = psu.queries(trim(queries[batch.query]), given.queries[batch.query] if given is not None else None)
            items = psu.items(titles.take(batch.title))
            negatives = apart(query, title)  # (n, n)
            weight = torch.from_numpy(batch.gain) * asked.here * items.here  # (n,)
            loss = relevance(asked.query, items.item, negatives & items.here, weight, config.temperature)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            progress(step, steps, loss.item())


@torch.inference_mode()
def cosines(psu: Psu, titles: Contents, queries: np.ndarray, given: Vectors | None, pairs: Judgements) -> np.ndarray:
    """cos(q, e) of each pair (n,), 0 where the query or the title says nothing."""
    found = []
    for start in range(0, len(pairs.query), CHUNK):
        query, title = pairs.query[start : start + CHUNK], pairs.title[start : start + CHUNK]
        asked = psu.queries(trim(queries[query]), given.queries[query] if given is not None else None).query  # (n, d)
        found.append(F.cosine_similarity(asked, psu.items(titles.take(title)).item).numpy())
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def _variants(config: Config, vectors: Vectors | None, ablations: bool) -> list[tuple[str, Config, Vectors | None]]:
    """Name, configuration and given vectors of each PSU that is trained."""
    wanted: list[tuple[str, Config, Vectors | None]] = [(PSU, config, None)]
    if vectors is not None:
        wanted.append(("PSU with the encoder's vectors as text modality", config, vectors))
    if ablations:
        wanted.append(("PSU without pretraining", config.replace(pretraining=PretrainingConfig(epochs=0)), None))
        wanted.append(("PSU, words only", config.replace(words=True, grams=()), None))
        wanted.append(("PSU, trigrams only", config.replace(words=False, grams=(3,)), None))
        wanted.append(("PSU, words and 3- to 5-grams", config.replace(words=True, grams=(3, 4, 5)), None))
    return wanted


def _titles(titles: Sequence[str], config: NetworkConfig, given: Vectors | None) -> Contents:
    """Titles as items that have no other modality."""
    nothing = np.zeros((len(titles), 1), np.float32)
    hashed = padded([pieces(title, config)[: config.title_ids] for title in titles])
    text = given.titles if given is not None else nothing
    return Contents(np.full(len(titles), UNKNOWN, np.int64), hashed, nothing.astype(np.int32), nothing, text)


def _bm25(test: Judgements) -> np.ndarray:
    """BM25 of each pair, over all titles of the file."""
    index, found = Bm25(test.titles), np.zeros(len(test.query), np.float32)
    for query in np.unique(test.query).tolist():
        rows = np.flatnonzero(test.query == query)
        found[rows] = index.scores(test.queries[query])[test.title[rows]]
    return found


def _statistics(found: np.ndarray, test: Judgements) -> tuple[Statistic, ...]:
    """The three metrics of scores (n,), as functions of positions."""
    positive = test.gain >= RELEVANT
    value, weight = np.zeros(len(found)), np.zeros(len(found))
    for query in np.unique(test.query).tolist():
        rows = np.flatnonzero(test.query == query)
        mine = auc(found[rows], positive[rows])
        if not np.isnan(mine):
            value[rows], weight[rows] = mine, 1 / len(rows)  # so that each query counts once
    return (
        lambda at: auc(found[at], positive[at]),
        lambda at: spearman(found[at], test.grade[at]),
        lambda at: float(np.average(value[at], weights=weight[at])) if weight[at].any() else float("nan"),
    )


def _groups(test: Judgements) -> np.ndarray:
    return np.unique(test.query, return_inverse=True)[1]


def summary(found: Mapping[str, np.ndarray], test: Judgements) -> dict[str, tuple[float, ...]]:
    """The metrics of each method's scores, without intervals."""
    everything = np.arange(len(test.grade))
    return {method: tuple(statistic(everything) for statistic in _statistics(mine, test)) for method, mine in found.items()}

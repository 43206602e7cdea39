"""Pairs of query and title with a human grade of relevance, and their split by queries."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import numpy as np

from features.sources.amounts import numbers
from features.sources.formats import detect
from features.sources.ids import words
from features.sources.refusals import Refusals
from features.sources.scanning import names, scan
from features.text import normalise
from research.errors import JudgementsError

_NAMES = {"query": ("query", "search_term"), "title": ("title", "product_title"), "relevance": ("relevance", "grade")}


class Judgements(NamedTuple):
    """n pairs, as numbers of distinct texts."""

    queries: list[str]  # distinct, sorted
    titles: list[str]  # distinct, sorted
    query: np.ndarray  # (n,) int64
    title: np.ndarray  # (n,) int64
    grade: np.ndarray  # (n,) float64, as given
    gain: np.ndarray  # (n,) float32, the grade from 0 (the lowest of the file) to 1

    def part(self, rows: np.ndarray) -> "Judgements":
        """The pairs at the given rows (m,), over the same texts."""
        return self._replace(query=self.query[rows], title=self.title[rows], grade=self.grade[rows], gain=self.gain[rows])


def is_judgements(path: Path) -> bool:
    """Whether a file has the three columns, under one of the names we know.

    Raises:
        SourceError: it is in no known format.
    """
    return len(_columns(names(path, detect(path)))) == len(_NAMES)


def read_judgements(path: Path) -> Judgements:
    """The pairs of a file in any format of features.sources; rows that lack a text or a grade are left out."""
    detected = detect(path)
    columns = _columns(names(path, detected))
    if missing := _NAMES.keys() - columns.keys():
        raise JudgementsError(f"{path} has no column for {', '.join(sorted(missing))}")
    rows: list[tuple[str, str, float]] = []
    for raw in scan(path, detected, Refusals(), lambda _: list(columns.values())):
        queries_, titles_ = (words(columns[name], raw.columns[columns[name]]).text.to_pylist() for name in ("query", "title"))
        grades = numbers(columns["relevance"], raw.columns[columns["relevance"]]).tolist()
        told = zip(queries_, titles_, grades, strict=True)
        rows += [(query, title, grade) for query, title, grade in told if query and title and isfinite(grade)]
    if not rows:
        raise JudgementsError(f"{path} has no pair with a query, a title and a grade")
    queries, query = np.unique([row[0] for row in rows], return_inverse=True)
    titles, title = np.unique([row[1] for row in rows], return_inverse=True)
    grade = np.array([row[2] for row in rows])
    gain = (grade - grade.min()) / max(np.ptp(grade), 1e-9)
    return Judgements(queries.tolist(), titles.tolist(), query, title, grade, gain.astype(np.float32))


def split(judgements: Judgements, share: float, seed: int) -> tuple[Judgements, Judgements]:
    """(training, held out): the queries of the second, a `share` of all, are not in the first. By normalised text."""
    spelling = np.array([normalise(query) for query in judgements.queries])
    _, group = np.unique(spelling, return_inverse=True)  # (queries,): spellings of one text go together
    count = int(group.max()) + 1
    out = np.random.default_rng(seed).permutation(count) < round(share * count)  # (groups,)
    held_out = out[group][judgements.query]  # (n,)
    return judgements.part(np.flatnonzero(~held_out)), judgements.part(np.flatnonzero(held_out))


def _columns(there: Sequence[str]) -> dict[str, str]:
    return {role: found for role, known in _NAMES.items() if (found := next((name for name in known if name in there), None))}

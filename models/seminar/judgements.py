"""Pairs of query and title with a human grade of relevance, and their split by queries."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet

from features.text import normalise

_NAMES = {"query": ("query", "search_term"), "title": ("title", "product_title"), "relevance": ("relevance", "grade")}


class BadJudgements(ValueError):
    """The file has no column of queries, titles or grades, or nothing in them."""


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
    """Whether a parquet file has the three columns, under one of the names we know."""
    return len(_columns(path)) == len(_NAMES)


def read_judgements(path: Path) -> Judgements:
    """The pairs of a parquet file; rows that lack a text or a grade are left out."""
    columns = _columns(path)
    if missing := _NAMES.keys() - columns.keys():
        raise BadJudgements(f"{path} has no column for {', '.join(sorted(missing))}")
    table = pyarrow.parquet.read_table(path, columns=list(columns.values()))
    told = zip(*(table[columns[name]].to_pylist() for name in _NAMES), strict=True)
    rows = [(query.strip(), title.strip(), float(grade)) for query, title, grade in told if query and title and grade is not None]
    if not rows:
        raise BadJudgements(f"{path} has no pair with a query, a title and a grade")
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


def _columns(path: Path) -> dict[str, str]:
    names = pyarrow.parquet.read_schema(path).names
    return {role: found for role, known in _NAMES.items() if (found := next((name for name in known if name in names), None))}

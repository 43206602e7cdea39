"""From scores to claims: means with intervals, paired differences from the cascade, standard deviation over seeds."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from models.evaluation.intervals import Bootstrap, bounds, mean
from models.evaluation.metrics import ALL, HIT_METRICS, METRICS, NEW, VIEWS, length_name
from models.evaluation.prediction_points import questions, users_asked
from models.evaluation.score import Entry, Tally, tally
from models.evaluation.split import Split

CASCADE = "cascade"
WITHOUT_REPEATS = "cascade without repeats"
WITH_REPEATS = " + repeats"  # ends the name of a trained baseline with the user's repeats merged in
DIGITS = 5


class Estimate(msgspec.Struct, frozen=True, omit_defaults=True):
    """A mean over prediction points and seeds; its 95 % interval over users; the mean of each seed if there are several."""

    mean: float
    low: float
    high: float
    seeds: list[float] = []

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds, None for a single one."""
        return float(np.std(self.seeds, ddof=1)) if len(self.seeds) > 1 else None


Row = dict[str, Estimate]  # metric -> estimate


class Section(msgspec.Struct, frozen=True):
    """One view of the prediction points. `minus` is the difference of the cascade, with and without repeats, and each of `compared`, paired
    by prediction point: name of the first -> name of the second -> row."""

    name: str
    moments: int
    users: int
    rows: dict[str, Row]
    minus: dict[str, dict[str, Row]]


class Report(msgspec.Struct, frozen=True):
    """An evaluation: sections by view and history length, categories by method, coverage@50, and ceilings.

    `targets` counts pairs of a prediction point and a target item, by the names of `TARGETS`. The last is what can be found at all.
    """

    split: str
    cut_ms: int
    train_users: int
    train_events: int
    catalogue: int
    moments: int
    users: int
    targets: dict[str, int]
    sections: list[Section]
    categories: dict[str, Row]
    coverage: dict[str, list[float]]

    def section(self, name: str = ALL) -> Section | None:
        """The section of that name, None if no prediction point belongs to it."""
        return next((section for section in self.sections if section.name == name), None)


def compared(name: str, contenders: Iterable[str]) -> list[str]:
    """Whom a cascade is compared with: `CASCADE` with all others, `WITHOUT_REPEATS` with all that have no repeats merged in."""
    others = [contender for contender in contenders if contender != name]
    return others if name == CASCADE else [other for other in others if other != CASCADE and not other.endswith(WITH_REPEATS)]


class EvaluationSample(NamedTuple):
    """The size of an evaluation: most baskets per user, most users (drawn by seed; None: all), seed of drawing and bootstrap."""

    per_user: int
    users: int | None = None
    seed: int = 0


def evaluate(
    split: Split,
    entries: Sequence[Entry],
    catalogue: Collection[str],
    asked: EvaluationSample,
    tell: Callable[[int], None] = lambda _: None,
) -> Report:
    """Evaluate all entries on what is held out. `catalogue`: items that can be recommended; `tell` is called with the points done."""
    users = users_asked(split, asked.users, asked.seed)
    known = frozenset(event.item for deeds in split.known.values() for event in deeds.events)
    scores = tally(questions(split, asked.per_user, users), entries, catalogue, known, tell)
    return Report(
        split=split.name,
        cut_ms=split.cut_ms,
        train_users=len(split.known),
        train_events=sum(len(deeds.events) for deeds in split.known.values()),
        catalogue=len(catalogue),
        moments=len(scores.users),
        users=len(set(scores.users)),
        targets=scores.targets,
        sections=_sections(scores, asked.seed),
        categories=_categories(scores, asked.seed),
        coverage=scores.coverage,
    )


def compact(report: Report) -> dict[str, dict[str, float]]:
    """Method -> metric -> value over all prediction points, with `_low` and `_high`, as in a bundle's manifest. Empty without points."""
    section = report.section()
    if section is None:
        return {}
    size = {"moments": float(section.moments), "users": float(section.users)}
    flat = {}
    for method, row in (section.rows | report.categories).items():
        flat[method] = dict(size)
        for metric, estimate in row.items():
            values = {metric: estimate.mean, f"{metric}_low": estimate.low, f"{metric}_high": estimate.high}
            flat[method] |= {name: round(value, 4) for name, value in values.items()}
    return flat


def _sections(scores: Tally, seed: int) -> list[Section]:
    if not scores.users:
        return []
    groups = np.unique(scores.lengths).tolist()
    found = [_section(name, scores, np.arange(len(scores.users)), at, seed) for at, name in enumerate(VIEWS)]
    found += [_section(length_name(group), scores, np.flatnonzero(scores.lengths == group), 0, seed) for group in groups]
    return [section for section in found if section.moments]


def _section(name: str, scores: Tally, moments: np.ndarray, view: int, seed: int) -> Section:
    values = {contender: array[:, moments, view] for contender, array in scores.items.items()}  # (seeds, m, METRICS) each
    if name == NEW:  # repeats do not change these lists
        values = {contender: array for contender, array in values.items() if not contender.endswith((WITHOUT_REPEATS, WITH_REPEATS))}
    counted = ~np.isnan(next(iter(values.values()))[0]).all(1)  # (m,): there is a target item
    values = {contender: array[:, counted] for contender, array in values.items()}
    owners = _owners([scores.users[at] for at in moments[counted]])
    bootstrap = Bootstrap(owners, seed)
    if not bootstrap.users:
        return Section(name, 0, 0, {}, {})
    averaged = {contender: array.mean(0) for contender, array in values.items()}  # (m, METRICS)
    resampled = {contender: bootstrap.means(array) for contender, array in averaged.items()}  # (draws, METRICS)
    rows = {contender: _row(METRICS, array, resampled[contender]) for contender, array in values.items()}
    minus = {
        ours: {
            other: _row(METRICS, (averaged[ours] - averaged[other])[None], resampled[ours] - resampled[other])
            for other in compared(ours, values)
        }
        for ours in (CASCADE, WITHOUT_REPEATS)
        if ours in values
    }
    return Section(name, len(owners), bootstrap.users, rows, minus)


def _categories(scores: Tally, seed: int) -> dict[str, Row]:
    if not scores.users:
        return {}
    bootstrap = Bootstrap(_owners(scores.users), seed)
    return {method: _row(HIT_METRICS, array, bootstrap.means(array.mean(0))) for method, array in scores.categories.items()}


def _row(names: Sequence[str], values: np.ndarray, resampled: np.ndarray) -> Row:
    """Estimates from values (seeds, m, M) and the resampled means (draws, M) of their mean over seeds; no metric without a number."""
    seeds = np.stack([mean(one) for one in values])  # (seeds, M)
    low, high = bounds(resampled)
    row = {}
    for at, name in enumerate(names):
        middle = seeds[:, at].mean()
        if not np.isnan(middle):
            several = _rounded(seeds[:, at]) if len(seeds) > 1 else []
            average, least, most = _rounded(np.array([middle, low[at], high[at]]))
            row[name] = Estimate(average, least, most, several)
    return row


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), DIGITS) for value in values]


def _owners(users: Sequence[str]) -> np.ndarray:
    return np.unique(np.asarray(users, dtype=object), return_inverse=True)[1].astype(np.int64)

"""A setting changed, and what that does: scores of the same moments, paired by moment, user and seed."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from models.evaluation.intervals import DRAWS, Bootstrap, bounds, mean
from models.evaluation.metrics import ALL, HIT_METRICS, METRICS, NEW, VIEWS
from models.evaluation.report import CASCADE, Estimate
from models.evaluation.score import Tally

TOLD = "long tower, told the category"
NAMED = "gated"  # what the cascade calls the categories that it searches, whatever their source
RECALL, NEW_RECALL, NEW_DEEP, CATEGORY, TOLD_HIT, TOLD_NEW = COLUMNS = (
    "recall@50",
    "new items recall@50",
    "new items recall@200",
    "category hit@8",
    "told category hr@20",
    "told category, new items hr@20",
)


class Scores(msgspec.Struct, frozen=True):
    """One training, or one way of serving it, asked Q questions: `values` (Q, COLUMNS), NaN where nothing is wanted."""

    users: Sequence[str]
    values: np.ndarray
    seconds: float  # of training


class Effect(msgspec.Struct, frozen=True):
    """What one row scores, and what it scores more than the row beside it; None of the row that all stand beside."""

    name: str
    beside: str
    seeds: int
    seconds: float
    scores: dict[str, Estimate]
    more: dict[str, Estimate] | None


def columns(tally: Tally) -> np.ndarray:
    """(Q, COLUMNS) of a tally of one cascade and one `ToldCategory`."""
    cascade, told = tally.items[CASCADE][0], tally.items[TOLD][0]  # (Q, views, METRICS)
    every, new = VIEWS.index(ALL), VIEWS.index(NEW)
    recall, deep, hit = (METRICS.index(name) for name in ("recall@50", "recall@200", "hr@20"))
    named = tally.categories[NAMED][0][:, HIT_METRICS.index("hit@8")]
    found = [cascade[:, every, recall], cascade[:, new, recall], cascade[:, new, deep]]
    return np.stack([*found, named, told[:, every, hit], told[:, new, hit]], 1)


def effect(name: str, row: Mapping[int, Scores], beside: str, base: Mapping[int, Scores], seed: int) -> Effect:
    """Of a row and the one it stands beside, by seed; compared are the seeds that both have, and there must be one.

    Intervals are of a bootstrap over users and over seeds: three trainings of the same configuration differ too.
    """
    seeds = sorted(row.keys() & base.keys())
    users = row[seeds[0]].users
    owners = np.unique(np.asarray(users, dtype=object), return_inverse=True)[1].astype(np.int64)
    bootstrap = Bootstrap(owners, seed)
    mine, theirs = (np.stack([of[n].values for n in seeds]) for of in (row, base))  # (seeds, Q, COLUMNS)
    scores = _estimates(mine, _resampled(bootstrap, mine, seed))
    more = None
    if name != beside:
        difference = mine - theirs  # (seeds, Q, COLUMNS)
        more = _estimates(difference, _resampled(bootstrap, difference, seed))
    return Effect(name, beside, len(seeds), sum(row[n].seconds for n in seeds) / len(seeds), scores, more)


def _resampled(bootstrap: Bootstrap, values: np.ndarray, seed: int) -> np.ndarray:
    """(seeds, Q, M) -> means (draws, M), each over users and over seeds drawn with replacement."""
    each = np.stack([bootstrap.means(one) for one in values])  # (seeds, draws, M)
    drawn = np.random.default_rng(seed).integers(0, len(values), (len(values), DRAWS))[:, : each.shape[1]]  # (seeds, draws)
    found: np.ndarray = np.take_along_axis(each, drawn[:, :, None], 0).mean(0)  # (draws, M)
    return found


def _estimates(values: np.ndarray, resampled: np.ndarray) -> dict[str, Estimate]:
    seeds = np.stack([mean(one) for one in values])  # (seeds, M)
    low, high = bounds(resampled)
    told = zip(COLUMNS, seeds.T.tolist(), low.tolist(), high.tolist(), strict=True)
    return {name: Estimate(float(np.mean(each)), least, most, each if len(each) > 1 else []) for name, each, least, most in told}

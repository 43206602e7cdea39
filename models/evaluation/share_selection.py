"""What suits a log: the shares of a candidate set (models.config.retrieval), and whether purchases are excluded.

Both are chosen by recall@50 on moments kept for choosing. One share after the other is tried at the values of `TRIED`, twice around, with
purchases excluded and without. A choice is changed only where the paired difference lies beyond 95 % of a bootstrap over users: where the
log does not tell, those of the bundle stay.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

import msgspec
import numpy as np

from models.config.retrieval import Shares
from models.evaluation.cascade import Cascade
from models.evaluation.intervals import Bootstrap, bounds
from models.evaluation.metrics import METRICS, item_metrics
from models.evaluation.prediction_points import Question
from models.evaluation.score import BATCH
from models.serving.retriever import CandidateLists

TRIED = {
    "repeat": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "query": (0.0, 0.3, 0.5, 0.7, 0.8, 0.9),
    "short": (0.1, 0.2, 0.4, 0.6, 0.8),
    "even": (0.0, 0.25, 0.5, 1.0),
}
ROUNDS = 2
CUT = 50
LEAST_USERS = 50  # of fewer nothing is chosen
_RECALL = METRICS.index(f"recall@{CUT}")


class Choice(msgspec.Struct, frozen=True):
    """The shares and whether purchases are excluded, on how much they were chosen, and recall@50 there with those of the bundle and with
    these."""

    shares: Shares
    exclude_bought: bool
    users: int
    moments: int
    before: float
    after: float


def choose_shares(cascade: Cascade, asked: Iterable[Question], seed: int) -> Choice:
    """What suits the moments of `asked`, which must not be those that are reported afterwards. `seed`: of the bootstrap."""
    questions = [question for question in asked if question.wanted]
    users, config = len({question.user for question in questions}), cascade.bundle.manifest.config.retrieval
    if not enough(users):
        return Choice(config.shares, config.exclude_bought, users, len(questions), 0.0, 0.0)
    batches = [questions[start : start + BATCH] for start in range(0, len(questions), BATCH)]
    owners = np.unique([question.user for question in questions], return_inverse=True)[1].astype(np.int64)
    bootstrap = Bootstrap(owners, seed)
    before, shares, recall = _best_shares(cascade.changed(exclude_bought=config.exclude_bought), batches, bootstrap)
    exclude = config.exclude_bought
    _, other_shares, other = _best_shares(cascade.changed(exclude_bought=not exclude), batches, bootstrap)
    if _better(bootstrap, other, recall):
        exclude, shares, recall = not exclude, other_shares, other
    return Choice(shares, exclude, users, len(questions), before, float(recall.mean()))


def _best_shares(cascade: Cascade, batches: Sequence[list[Question]], bootstrap: Bootstrap) -> tuple[float, Shares, np.ndarray]:
    """Mean recall with the shares of the bundle, the shares that were chosen, and recall (Q,) of every question with these."""
    lists = [(batch, cascade.lists(batch, CUT)) for batch in batches]
    shares = cascade.bundle.manifest.config.retrieval.shares
    recall = _recall(cascade, lists, shares)
    before = float(recall.mean())
    for _ in range(ROUNDS):
        for name, values in TRIED.items():
            others = [msgspec.structs.replace(shares, **{name: value}) for value in values if value != getattr(shares, name)]
            tried = [(other, _recall(cascade, lists, other)) for other in others]
            best, found = max(tried, key=lambda one: float(one[1].mean()))
            if _better(bootstrap, found, recall):
                shares, recall = best, found
    return before, shares, recall


def _better(bootstrap: Bootstrap, found: np.ndarray, recall: np.ndarray) -> bool:
    """Whether recall (Q,) is better beyond 95 % of the bootstrap."""
    return bool(bounds(bootstrap.means((found - recall)[:, None]))[0, 0] > 0)


def enough(users: int) -> bool:
    """Whether so many users are enough to choose by."""
    return users >= LEAST_USERS


def chooses(user: str, seed: int) -> bool:
    """Whether shares are chosen on this held-out user, as on about half of them, by the user alone; results are reported for the rest."""
    return bool(blake2b(f"{seed} {user}".encode(), digest_size=1).digest()[0] & 1)


def halves(users: Iterable[str], seed: int) -> tuple[list[str], list[str]]:
    """Users to choose by and users to report of, each ascending."""
    every = sorted(users)
    return [user for user in every if chooses(user, seed)], [user for user in every if not chooses(user, seed)]


def _recall(cascade: Cascade, lists: Sequence[tuple[list[Question], CandidateLists]], shares: Shares) -> np.ndarray:
    """recall@50 (Q,) of every question."""

    def each() -> Iterator[float]:
        for batch, found in lists:
            for question, ranked in zip(batch, cascade.merged(found, shares), strict=True):
                yield item_metrics(ranked, question.basket, question.wanted)[_RECALL]

    return np.fromiter(each(), np.float64)

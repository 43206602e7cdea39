"""How well codes stand for vectors in lifelong attention: of the best positions of real histories, how many do codes find?"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from features.history import Deeds
from models.bundle import Bundle
from models.codes.lifelong import FIRST, KEPT, CodedHistories, CodeTable, LifelongHits, LifelongSearch

USERS = 500  # histories looked at, at most
EQUAL = 1e-6  # cosines that differ by less are one


class CodeRecall(msgspec.Struct, frozen=True):
    """Means over histories. What `kept` positions of a history are best is asked of vectors, of codes, and of codes with re-rank.

    `alone` and `reranked` are the shares of the best by vectors that are found; `weight` is the share of the exact attention
    (softmax over all of the history) that those found after the re-rank hold, beside `most`, that of the best by vectors.
    """

    histories: int
    events: float  # of a history
    kept: int
    alone: float
    reranked: float
    weight: float
    most: float


def code_recall(bundle: Bundle, known: Mapping[str, Deeds], users: Sequence[str]) -> CodeRecall | None:
    """Of the longest histories among `users` that have more than `KEPT` events; the target is the newest item of each.

    None where there is no such history, or where codes stand for modalities and not for the vectors.
    """
    if bundle.items.parts is not None:
        return None
    place = {item: at for at, item in enumerate(bundle.items.ids)}
    told = ([place[event.item] for event in known[user].events if event.item in place] for user in users if user in known)
    longest = sorted((mine for mine in told if len(mine) > KEPT + 1), key=len, reverse=True)[:USERS]
    if not longest:
        return None
    table, vectors = CodeTable(bundle.items.codes, bundle.items.vectors), bundle.items.vectors
    found = []
    for mine in longest:
        history, target = np.array(mine[:-1]), vectors[mine[-1]]
        scores = vectors[history] @ target  # (L,)
        asked = CodedHistories(history, np.array([0, len(history)]))
        best = np.argsort(-scores, kind="stable")[:KEPT]
        right = set(np.flatnonzero(scores >= scores[best[-1]] - EQUAL).tolist())  # an item that stands twice is as good in either place
        alone, both = (
            LifelongSearch(bundle.codebook, first, KEPT).search(target[None], table, asked) for first in (KEPT, max(KEPT, FIRST))
        )
        share = np.exp((scores - scores.max()).astype(np.float64))
        share /= share.sum()
        held = [share[list(chosen)].sum() for chosen in (_positions(both), best)]
        found.append((len(_positions(alone) & right) / KEPT, len(_positions(both) & right) / KEPT, *held))
    alone, reranked, weight, most = np.mean(found, axis=0).round(4).tolist()
    events = round(float(np.mean([len(mine) - 1 for mine in longest])), 1)
    return CodeRecall(len(longest), events, KEPT, alone, reranked, weight, most)


def _positions(found: LifelongHits) -> set[int]:
    return set(found.positions[0, 0].tolist())

"""A reranker on top of a bundle: its training from the bundle's history, and the cascade with its lists reordered, as a contender."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from features.events import Item
from features.history import Deeds
from features.outcomes import Candidate
from features.rows import CategoryRow, UserRow
from models.bundle import Bundle
from models.encoding.contents import strangers
from models.encoding.inputs import Positions
from models.evaluation.baselines import Answer
from models.evaluation.cascade import Cascade
from models.evaluation.prediction_points import Question
from research.reranking.config import RerankConfig
from research.reranking.examples import build, first_seen
from research.reranking.learning import Learning
from research.reranking.model import Reranker
from research.reranking.order import Scoring, depth, reranked


def train_reranker(bundle: Bundle, known: Mapping[str, Deeds], catalogue: Sequence[Item], config: RerankConfig, seed: int) -> Scoring:
    """Train a reranker on what users did before the bundle's cut. The vectors of the bundle are not changed."""
    torch.manual_seed(seed)
    vocabulary, places = bundle.vocabulary, {item: at for at, item in enumerate(bundle.items.ids)}
    described = {item.item_id: item for item in catalogue}
    ordered = [described[item] for item in bundle.items.ids]
    vectors, positions = _vectors(bundle), Positions(places, vocabulary)
    category = np.array([vocabulary.category(name) for name in bundle.items.categories], np.int64)
    cut_ms = bundle.manifest.cut_ms
    assert cut_ms is not None
    examples = build(known, positions, first_seen(ordered, known), config, cut_ms)
    reranker = Reranker(config).to(vectors.device)
    Learning(reranker, vectors, category, config).fit(examples, seed)
    return Scoring(reranker.eval(), vectors, positions, config)


@torch.no_grad()
def _vectors(bundle: Bundle) -> torch.Tensor:
    """(V + N, d) of the bundle's items and of the unknown item of each category."""
    network, manifest = bundle.network.eval(), bundle.manifest
    unknown = network.items(strangers(bundle.vocabulary, manifest.config.network, manifest.widths))
    return torch.cat([torch.from_numpy(bundle.items.vectors).to(unknown.device), unknown])


class Reranked:
    """A contender: the candidates of a cascade in the order of a reranker."""

    def __init__(self, cascade: Cascade, scoring: Scoring) -> None:
        self._cascade, self._scoring = cascade, scoring

    def answer(self, asked: Sequence[Question], k: int) -> list[Answer]:
        """As promised by `Contender`; the categories are those of the cascade."""
        users, rows = [question.row for question in asked], [question.rows for question in asked]
        lists = [self._ordered(users, rows, self._cascade.candidates(asked, depth(k), new), k) for new in (False, True)]
        categories = [answer.categories for answer in self._cascade.answer(asked, 1)]
        return [Answer(*answer) for answer in zip(*lists, categories, strict=True)]

    def _ordered(
        self,
        users: Sequence[UserRow],
        rows: Sequence[Mapping[str, CategoryRow]],
        found: Sequence[Sequence[Candidate]],
        k: int,
    ) -> list[list[str]]:
        return [[candidate.item for candidate in mine] for mine in reranked(self._scoring, users, rows, found, k)]

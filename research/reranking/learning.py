"""How the reranker learns: the target among what the user had and among sampled others, item vectors frozen.

The user's own items are all there. The others (research.reranking.negatives) are divided by how often they are expected (logQ),
so that the softmax estimates that over all items. Candidates of the cascade are no negatives: its towers, trained on the
same events, find the targets among these far more often than later ones, and the reranker would learn to trust them.
"""

from functools import partial

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.encoding.inputs import tensors
from models.network.layers import NEVER
from models.training.loop import Run, fit
from models.training.phase import Phase, Tell
from research.reranking.config import RerankConfig
from research.reranking.examples import RerankExamples
from research.reranking.histories import Candidates, RerankHistories
from research.reranking.model import Reranker
from research.reranking.negatives import NegativePool
from research.reranking.repeats import RerankBatch


class Learning:
    """A reranker, what it points into, and what it learns from."""

    def __init__(self, reranker: Reranker, vectors: Tensor, category: np.ndarray, config: RerankConfig) -> None:
        """`vectors` (V + N, d) are those of items and strangers, frozen; `category` (V,) the row of each item's category."""
        self._reranker, self._vectors, self._category, self._config = reranker, vectors.detach(), category, config

    def fit(self, examples: RerankExamples, seed: int, tell: Tell = lambda _: None, run: Run | None = None) -> None:
        """Train the reranker on all examples; as it is where there are none."""
        config, pool = self._config, NegativePool(self._category, examples.target)
        phase = Phase(
            "reranking",
            partial(examples.batches, config.batch),
            lambda batch, rng: self.loss(examples, pool, batch, rng),
            -(-len(examples.target) // config.batch),
            config.epochs,
            config.learning_rate,
            settings=msgspec.json.encode(config).decode(),
            data=(*examples.arrays, self._vectors.cpu().numpy()),
        )
        fit(self._reranker, phase, np.random.default_rng([seed, 1]), tell, run)

    def loss(self, examples: RerankExamples, pool: NegativePool, batch: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Mean cross entropy of the targets of a batch, a scalar."""
        histories = examples.histories.take(examples.moment[batch])
        histories = RerankHistories(*(array if array is histories.age else array.astype(np.int64) for array in histories))
        asked, log_q = _asked(histories, (examples.target[batch], examples.category[batch]), pool, self._config.negatives, rng)
        device = self._vectors.device
        on_device = RerankBatch(tensors(histories, device), tensors(asked, device))
        logits = self._reranker(self._vectors, on_device) - tensors([log_q], device)[0]  # (B, C)
        return F.cross_entropy(logits.masked_fill(~on_device.here, NEVER), torch.zeros(len(batch), dtype=torch.int64, device=device))


def _asked(
    histories: RerankHistories, wanted: tuple[np.ndarray, np.ndarray], pool: NegativePool, count: int, rng: np.random.Generator
) -> tuple[Candidates, np.ndarray]:
    """The target first, then the events of the history, then `count` sampled items; and ln of how often each is expected (B, C)."""
    target, category = (array[:, None] for array in wanted)  # (B, 1)
    drawn, rows, log_q = pool.draw(histories, count, rng)  # (B, count)
    own = distinct(histories) & (histories.number != target)  # (B, L)
    others = ~(drawn[:, :, None] == histories.number[:, None, :]).any(2) & (drawn != target)
    asked = Candidates(
        np.concatenate([target, histories.item, drawn], 1),
        np.concatenate([target, histories.number, drawn], 1),
        np.concatenate([category, histories.category, rows], 1),
        np.concatenate([np.ones_like(target, np.bool_), own, others], 1),
    )
    return asked, np.concatenate([np.zeros((len(own), own.shape[1] + 1)), log_q], 1).astype(np.float32)


def distinct(histories: RerankHistories) -> np.ndarray:
    """Which events are the newest of their item: (B, L)."""
    same = histories.number[:, :, None] == histories.number[:, None, :]  # (B, L, L)
    later = np.triu(np.ones(same.shape[1:], np.bool_), 1)
    there = histories.kind > 0
    found: np.ndarray = there & ~(same & later & there[:, None, :]).any(2)
    return found

"""One training loop for all rivals: sampled softmax over all items, Adam, epochs until a deadline."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from research.baselines.configuration import Configuration
from research.baselines.corpus import Corpus
from research.baselines.rechub import Encoder, Stepwise, build

NEVER = -1e9
SCORES = 16_000_000  # held at a time while the catalogue is ranked


class ValidationBatch(NamedTuple):
    """Vectors of Q questions, I interests each, and the item that came next."""

    interests: Tensor  # (Q, I, d)
    target: Tensor  # (Q,)


class BaselineTraining:
    """A model under training; `epoch` goes once over the corpus."""

    def __init__(self, name: str, corpus: Corpus, settings: Configuration, seed: int) -> None:
        torch.manual_seed(seed)
        self._examples = corpus.examples()
        longest = int((corpus.end - corpus.first).max(initial=1))
        settings = settings._replace(length=max(1, min(settings.length, longest)))
        self.encoder = build(name, len(corpus.items), len(corpus.category_number), settings)
        self._corpus = corpus
        self._settings = settings
        self._rng = np.random.default_rng(seed)
        targets = np.bincount(corpus.item[self._examples], minlength=len(corpus.counts))
        self._share = torch.from_numpy(targets / max(1, targets.sum()))  # (V + 1,)
        self._optimizer = torch.optim.Adam(self.encoder.parameters(), lr=settings.rate, weight_decay=settings.decay, fused=True)

    def epoch(self, in_time: Callable[[], bool]) -> bool:
        """Train on every example once; False where time ran out before the end."""
        self.encoder.train()
        for asked in self._windows() if isinstance(self.encoder, Stepwise) else self._points():
            if not in_time():
                return False
            self._optimizer.zero_grad(set_to_none=True)
            self._loss(asked).backward()
            self._optimizer.step()
        return True

    def _points(self) -> Iterator[ValidationBatch]:
        order = self._rng.permutation(self._examples)
        size = self._settings.batch
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            if len(batch) > 1 or start == 0:  # batch normalisation needs two
                batch = np.resize(batch, max(2, len(batch)))
                items, categories = self._corpus.before(batch, self._settings.length)
                interests = self.encoder.interests(torch.from_numpy(items), torch.from_numpy(categories))
                yield ValidationBatch(interests, torch.from_numpy(self._corpus.item[batch]))

    def _windows(self) -> Iterator[ValidationBatch]:
        """Windows of S events, drawn again each epoch; the targets of a window's events are the baskets right after them."""
        assert isinstance(self.encoder, Stepwise)
        corpus, length = self._corpus, self._settings.length
        windows = corpus.windows(length, self._rng)
        order = self._rng.permutation(len(windows))
        per_batch = max(2, 2 * self._settings.batch // length)
        for start in range(0, len(order), per_batch):
            chosen = [windows[at] for at in order[start : start + per_batch]]
            begin = np.array([window.begin for window in chosen])
            last = np.array([corpus.end[window.examples[-1]] - 1 for window in chosen])
            at = begin[:, None] + np.arange(length)  # (B, S)
            items = np.where(at <= last[:, None], corpus.item[np.minimum(at, len(corpus.item) - 1)], 0)
            examples = np.concatenate([window.examples for window in chosen])  # (Q,)
            row = np.repeat(np.arange(len(chosen)), [len(window.examples) for window in chosen])  # (Q,)
            step = corpus.end[examples] - 1 - begin[row]  # (Q,)
            vectors = self.encoder.steps(torch.from_numpy(items))  # (B, longest, d)
            interests = vectors[torch.from_numpy(row), torch.from_numpy(step)].unsqueeze(1)
            yield ValidationBatch(interests, torch.from_numpy(corpus.item[examples]))

    def _loss(self, asked: ValidationBatch) -> Tensor:
        """Cross entropy over the batch's targets and shared negatives, corrected for how often each is drawn (logQ)."""
        items = len(self._share) - 1
        negatives = self._settings.negatives
        target = asked.target
        drawn = torch.from_numpy(self._rng.integers(1, items + 1, negatives))
        candidates = torch.cat([target, drawn])  # (C,)
        often = len(target) * self._share[candidates] + negatives / items
        vectors = self.encoder.items(candidates)  # (C, d)
        best = (asked.interests * vectors[: len(target), None]).sum(-1).argmax(1)  # (Q,) the interest that the target speaks to
        chosen = asked.interests[torch.arange(len(target)), best]  # (Q, d)
        logits = chosen @ vectors.T / (self._settings.temperature if self._settings.cosine else 1.0) - often.log().float()  # (Q, C)
        own = torch.eye(len(target), len(candidates), dtype=torch.bool)
        logits = logits.masked_fill((target[:, None] == candidates[None]) & ~own, NEVER)
        return F.cross_entropy(logits, torch.arange(len(target)))


def rank(encoder: Encoder, items: Tensor, categories: Tensor, k: int) -> Tensor:
    """The `k` best of all V items, as numbers, for right-aligned histories (B, S): (B, min(k, V))."""
    encoder.eval()
    found = []
    with torch.inference_mode():
        vectors = encoder.items()[1:]  # (V, d)
        step = max(1, SCORES // len(vectors))
        for start in range(0, len(items), step):
            interests = encoder.interests(items[start : start + step], categories[start : start + step])  # (B, I, d)
            scores = interests[:, 0] @ vectors.T  # (B, V)
            for other in interests.unbind(1)[1:]:
                torch.maximum(scores, other @ vectors.T, out=scores)
            found.append(scores.topk(min(k, len(vectors)), 1).indices + 1)
    return torch.cat(found)

"""What towers are made of: attention and means under masks, words, the empty sequence, two layers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NEVER = -1e4  # the score of what is masked: exactly 0 after a softmax, and a number of float16 too


def attend(query: Tensor, keys: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Target attention: (B, d), (B, T, d), (B, T), ln n (B, T) -> (B, T), exactly 0 where masked."""
    scores = torch.einsum("bd,btd->bt", query, keys) / keys.shape[-1] ** 0.5 + weight  # (B, T)
    return scores.masked_fill(~mask, NEVER).softmax(1) * mask  # (B, T)


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """(B, T, d), (B, T) -> (B, d); zeros where nothing is there."""
    return (tokens * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)  # (B, d)


def mean_words(table: nn.Embedding, words: Tensor) -> Tensor:
    """Embeddings of hashed words (n, W), 0 padding -> their mean (n, d)."""
    if words.shape[1] == 0:
        return table.weight.new_zeros(len(words), table.embedding_dim)
    return F.embedding_bag(words, table.weight, mode="mean", padding_idx=0)  # (n, d)


def or_empty(tokens: Tensor, mask: Tensor, empty: Tensor) -> tuple[Tensor, Tensor]:
    """Put the learned empty token, (d) or (B, d), in the first place of each sequence that has none: (B, T, d), (B, T)."""
    first = torch.zeros_like(mask)  # (B, T)
    first[:, 0] = ~mask.any(1)
    filled = torch.where(first.unsqueeze(-1), empty.expand(len(tokens), -1).unsqueeze(1), tokens)  # (B, T, d)
    return filled, mask | first


def dnn(wide: int, dim: int) -> nn.Sequential:
    """Two layers: (n, wide) -> (n, dim)."""
    return nn.Sequential(nn.Linear(wide, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

"""The parts of the towers: attention and means under masks, mean word embeddings, the empty sequence, two-layer networks."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NEVER = -1e4  # score of a masked position: exactly 0 after a softmax, and representable in float16


def attend(query: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Target attention: queries (B, d), keys (B, T, d), mask (B, T) -> weights (B, T), exactly 0 where masked."""
    scores = torch.einsum("bd,btd->bt", query, keys) / keys.shape[-1] ** 0.5  # (B, T)
    found: Tensor = scores.masked_fill(~mask, NEVER).softmax(1) * mask  # (B, T)
    return found


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """(B, T, d), (B, T) -> (B, d); zeros where everything is masked."""
    return (tokens * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)  # (B, d)


def mean_words(table: nn.Embedding, words: Tensor) -> Tensor:
    """Embeddings of hashed words (n, W), 0 padding -> their mean (n, d)."""
    if words.shape[1] == 0:
        return table.weight.new_zeros(len(words), table.embedding_dim)
    return F.embedding_bag(words, table.weight, mode="mean", padding_idx=0)  # (n, d)


def or_empty(tokens: Tensor, mask: Tensor, empty: Tensor) -> tuple[Tensor, Tensor]:
    """Put the learned empty token, (d) or (B, d), at the first position of each empty sequence: (B, T, d), (B, T)."""
    first = torch.zeros_like(mask)  # (B, T)
    first[:, 0] = ~mask.any(1)
    filled = torch.where(first.unsqueeze(-1), empty.expand(len(tokens), -1).unsqueeze(1), tokens)  # (B, T, d)
    return filled, mask | first


def dnn(wide: int, dim: int) -> nn.Sequential:
    """Two layers: (n, wide) -> (n, dim)."""
    return nn.Sequential(nn.Linear(wide, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))


class SelfAttention(nn.Module):
    """One pre-norm block of multi-head self-attention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.mix = nn.Linear(dim, dim)
        self.first, self.second = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.feed = dnn(dim, dim)

    def forward(self, tokens: Tensor, allowed: Tensor) -> Tensor:
        """Tokens (B, T, d) and which are attended to, (B, T) or per query (B, T, T) -> (B, T, d)."""
        batch, length, dim = tokens.shape
        allowed = allowed[:, None, None, :] if allowed.ndim == 2 else allowed[:, None]
        split = self.qkv(self.first(tokens)).view(batch, length, 3, self.heads, dim // self.heads)  # (B, T, 3, H, d/H)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # (B, H, T, d/H) each
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)  # (B, H, T, d/H)
        tokens = tokens + self.mix(attended.transpose(1, 2).reshape(batch, length, dim))  # (B, T, d)
        found: Tensor = tokens + self.feed(self.second(tokens))  # (B, T, d)
        return found

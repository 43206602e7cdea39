"""Self-attention: the block of the short tower, and the long tower's pooling where the short history does not ask (an ablation)."""

from torch import Tensor, nn
from torch.nn import functional as F

from models.network.layers import NEVER, dnn, masked_mean


class SelfAttention(nn.Module):
    """One block of self-attention, normalised before each part."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.mix = nn.Linear(dim, dim)
        self.first, self.second = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.feed = dnn(dim, dim)

    def forward(self, tokens: Tensor, allowed: Tensor) -> Tensor:
        """(B, T, d) and which may read which: (B, T) of those that all read, or (B, T, T) by reader -> (B, T, d)."""
        batch, length, dim = tokens.shape
        allowed = allowed[:, None, None, :] if allowed.ndim == 2 else allowed[:, None]
        split = self.qkv(self.first(tokens)).view(batch, length, 3, self.heads, dim // self.heads)  # (B, T, 3, H, d/H)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # (B, H, T, d/H) each
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)  # (B, H, T, d/H)
        tokens = tokens + self.mix(attended.transpose(1, 2).reshape(batch, length, dim))  # (B, T, d)
        return tokens + self.feed(self.second(tokens))  # (B, T, d)


class SelfPooling(nn.Module):
    """Tokens that read each other, and their mean: nobody asks them anything."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.block = SelfAttention(dim, heads)
        self.weigh = nn.Linear(dim, 1)

    def forward(self, tokens: Tensor, mask: Tensor, weight: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        """(R, L, d), (R, L), ln n (R, L), and what is not read here -> the mean (R, d), and how much each counts as an item (R, L)."""
        read = self.block(tokens, mask)  # (R, L, d)
        scores = self.weigh(read).squeeze(-1) + weight  # (R, L)
        return masked_mean(read, mask), scores.masked_fill(~mask, NEVER).softmax(1) * mask  # (R, d), (R, L)

"""Self-attention over the long sequence instead of target attention by the short history."""

from torch import Tensor, nn

from models.network.layers import NEVER, SelfAttention, masked_mean


class SelfPooling(nn.Module):
    """The mean of self-attended tokens, whatever the short history."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.block = SelfAttention(dim, heads)
        self.weigh = nn.Linear(dim, 1)

    def forward(self, tokens: Tensor, mask: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (R, L, d), mask (R, L), p_s (R, d), which is not read -> p_l (R, d), attention (R, L)."""
        read = self.block(tokens, mask)  # (R, L, d)
        scores = self.weigh(read).squeeze(-1)  # (R, L)
        return masked_mean(read, mask), scores.masked_fill(~mask, NEVER).softmax(1) * mask  # (R, d), (R, L)

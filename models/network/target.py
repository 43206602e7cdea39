"""Target attention: what is asked of a lifelong sequence by the short history."""

from torch import Tensor, nn

from models.network.layers import attend


class TargetPooling(nn.Module):
    """The attention of the SHORT pooling over the tokens of one category."""

    def __init__(self, dim: int, keyed: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, keyed)
        self.key = nn.Linear(keyed, keyed)

    def forward(self, tokens: Tensor, mask: Tensor, weight: Tensor, pooled: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """(R, L, d), (R, L), ln n (R, L), p_s (R, d), what keys are made of (R, L, k) -> p_l (R, d), attention (R, L)."""
        attention = attend(self.query(pooled), self.key(read), mask, weight)  # (R, L)
        return (attention.unsqueeze(-1) * tokens).sum(1), attention  # (R, d), (R, L)

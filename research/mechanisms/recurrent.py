"""A recurrent block for the short tower: one state, updated once per event, in the spirit of SIGMA and STAR-Rec.

The recurrence is minGRU (arXiv 2410.01201): h_t = (1 - z_t) h_{t-1} + z_t c_t, z_t = sigmoid(W_z x_t), c_t = W_c x_t. Gate and candidate
read no state, so all T states come out of log2(T) doublings, and one more event costs O(1) whatever the length.
"""

import torch
from torch import Tensor, nn

from models.network.layers import dnn


class Recurrent(nn.Module):
    """One pre-norm block of it, with the interface of `SelfAttention`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, dim)
        self.candidate = nn.Linear(dim, dim)
        self.mix = nn.Linear(dim, dim)
        self.first, self.second = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.feed = dnn(dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, T, d) oldest first, (B, T) -> (B, T, d); a token reads those before it, and a masked one leaves the state unchanged."""
        read = self.first(tokens)  # (B, T, d)
        moved = torch.sigmoid(self.gate(read)) * mask.unsqueeze(-1)  # (B, T, d) z_t
        states = scan(1 - moved, moved * self.candidate(read))  # (B, T, d)
        tokens = tokens + self.mix(states)  # (B, T, d)
        found: Tensor = tokens + self.feed(self.second(tokens))  # (B, T, d)
        return found


def scan(kept: Tensor, added: Tensor) -> Tensor:
    """h_t = kept_t h_{t-1} + added_t from h_0 = 0, for all t at once: (B, T, d) twice -> (B, T, d). `kept` is in [0, 1]."""
    reach = 1
    while reach < kept.shape[1]:
        before = added[:, :-reach]  # the sum of the steps up to `reach` earlier
        added = torch.cat([added[:, :reach], added[:, reach:] + kept[:, reach:] * before], 1)
        kept = torch.cat([kept[:, :reach], kept[:, reach:] * kept[:, :-reach]], 1)
        reach *= 2
    return added

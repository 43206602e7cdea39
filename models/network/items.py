"""Items and texts as vectors of one space: what is searched, what histories read, and what a live query searches with.

SEMINAR's search unit (models.network.psu) makes them of their modalities; the projections G_m here are retrieval's own, for
those of the GSU and ESU learn to weigh, these to be near. Queries go through the same layers as titles do.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from models.network.layers import dnn
from models.network.psu import Items, Queries
from models.network.search import Spaces


class ItemSpace(nn.Module):
    """normalise(x + MLP(x)), x the sum over modalities of g_m G_m e_m of an item, or G_q q of a query."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.spaces = Spaces(dim)
        self.mlp = dnn(dim, dim)

    def items(self, items: Items) -> Tensor:
        """Unit vectors (n, d) of n items; one without any modality has that of nothing."""
        return self._placed(self.spaces.items(items))

    def queries(self, queries: Queries) -> Tensor:
        """Unit vectors (n, d) of n queries, zeros where one says nothing."""
        return self._placed(self.spaces.query(queries.query)) * queries.here.unsqueeze(-1)  # (n, d)

    def _placed(self, mixed: Tensor) -> Tensor:
        return F.normalize(mixed + self.mlp(mixed), dim=-1)  # (n, d)

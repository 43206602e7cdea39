"""Lifelong attention over codes on any torch device: as `models.codes.lifelong`, with nothing leaving the device in between."""

import numpy as np
import torch
from torch import Tensor

from models.codes.codebook import Codebook
from models.codes.lifelong import FIRST, KEPT

SCORES = 1 << 26  # scores held at once, 256 MiB


class DeviceSearch:
    """A table of items on a device, and the search of histories in it: the results of `LifelongSearch`, to rounding.

    Args:
        codebook: what the codes are of.
        codes: (n, P) uint8 on the device.
        vectors: (n, d) float32 on the same device.
        first: positions that codes choose.
        kept: of these, positions that vectors choose.
    """

    def __init__(self, codebook: Codebook, codes: Tensor, vectors: Tensor, first: int = FIRST, kept: int = KEPT) -> None:
        if not 1 <= kept <= first or len(codes) != len(vectors) or codes.shape[1:] != (codebook.subspaces,):
            raise ValueError(f"codes {tuple(codes.shape)}, vectors {tuple(vectors.shape)}, {kept} kept of {first}")
        self._codes, self._vectors, self._first, self._kept = codes, vectors, first, kept
        self._centroids = torch.from_numpy(np.array(codebook.centroids)).to(codes.device)  # (P, C, d/P)

    @torch.inference_mode()
    def search(
        self,
        queries: Tensor,
        numbers: Tensor,
        offsets: Tensor,
        bias: Tensor | None = None,
        mask: Tensor | None = None,
        exact: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Positions (B, T, kept) int64 and scores (B, T, kept), as `Found`, for queries (B, T, D).

        Numbers (total,), offsets (B + 1,), bias, mask and `exact` (B, T, d) as in `Histories` and `LifelongSearch.search`,
        all tensors on the device of the table.
        """
        exact = queries if exact is None else exact
        users, targets = queries.shape[:2]
        positions = torch.full((users, targets, self._kept), -1, dtype=torch.int64, device=queries.device)
        scores = torch.full((users, targets, self._kept), -torch.inf, device=queries.device)
        longest = int((offsets[1:] - offsets[:-1]).max()) if users else 0
        step = max(1, SCORES // max(1, longest * targets))
        for start in range(0, users if longest else 0, step):
            part = slice(start, min(start + step, users))
            at = offsets[part, None] + torch.arange(longest, device=queries.device)  # (b, L)
            here = at < offsets[part.start + 1 : part.stop + 1, None]  # (b, L)
            at = at.clamp(max=len(numbers) - 1)
            here &= numbers[at] >= 0
            here = here if mask is None else here & mask[at]
            extra = None if bias is None else bias[at][:, None]  # (b, 1, L)
            rows = numbers[at].clamp(min=0).long()  # (b, L)
            found = self._user(queries[part], exact[part], rows, here, extra)
            width = found[0].shape[2]
            positions[part, :, :width], scores[part, :, :width] = found
        return positions, scores

    def _user(self, queries: Tensor, exact: Tensor, rows: Tensor, here: Tensor, extra: Tensor | None) -> tuple[Tensor, Tensor]:
        scores = self._scores(queries, self._codes[rows])  # (b, T, L)
        if extra is not None:
            scores += extra
        chosen = first_best(scores.masked_fill_(~here[:, None], -torch.inf), self._first)  # (b, T, F) ascending
        users = torch.arange(len(rows), device=rows.device)[:, None, None]
        vectors = self._vectors[rows[users, chosen]]  # (b, T, F, d)
        scores = (vectors @ exact.unsqueeze(-1)).squeeze(-1)  # (b, T, F)
        if extra is not None:
            scores += extra.expand(-1, chosen.shape[1], -1).gather(2, chosen)
        scores = scores.masked_fill_(~here[users, chosen], -torch.inf)
        scores, order = scores.sort(dim=-1, descending=True, stable=True)
        scores, positions = scores[..., : self._kept], chosen.gather(2, order)[..., : self._kept]
        return positions.masked_fill(scores == -torch.inf, -1), scores

    def _scores(self, queries: Tensor, codes: Tensor) -> Tensor:
        """Scores (b, T, L) of codes (b, L, P) for queries (b, T, D), by look-up."""
        parts = queries.unflatten(2, (len(self._centroids), -1))  # (b, T, P, d/P)
        tables = torch.einsum("btpw,pcw->btpc", parts, self._centroids)  # (b, T, P, C)
        scores = torch.zeros((*queries.shape[:2], codes.shape[1]), device=queries.device)
        for p in range(codes.shape[2]):
            entries = codes[:, None, :, p].long().expand(-1, queries.shape[1], -1)  # (b, T, L)
            scores += tables[:, :, p].gather(2, entries)
        return scores


def first_best(scores: Tensor, count: int) -> Tensor:
    """Where the `count` best of scores (b, T, L) are, ascending, ties to the lower; all where L is no more."""
    length = scores.shape[2]
    if length <= count:
        return torch.arange(length, device=scores.device).expand(*scores.shape[:2], -1)
    least = scores.topk(count, dim=2, sorted=False).values.amin(2, keepdim=True)  # (b, T, 1)
    above, equal = scores > least, scores == least  # (b, T, L)
    chosen = above | (equal & (equal.cumsum(2) <= count - above.sum(2, keepdim=True)))  # exactly `count` in each
    return chosen.nonzero()[:, 2].view(*scores.shape[:2], count)

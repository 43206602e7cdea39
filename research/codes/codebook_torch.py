"""The codebook on a torch device: nothing leaves it between vectors, codes, tables, scores and the best of them.

Codes are those of models.codes.codebook bit for bit: float32 proposes, a bound on its error says where it cannot tell, float64
decides there, operation by operation as numpy does. Scores agree to 1e-5 of their size.
"""

import torch
from torch import Tensor

from models.codes.codebook import Codebook

_CELLS, _CACHED = 1 << 24, 1 << 20  # values of nearness or of scores at once: on a device, and what a core's own cache holds
_UNSURE = 2048  # parts that float64 decides at once
_FINE, _COARSE = 2.0**-22, 2.0**-6  # errors of a product: of float32, and of what stands in for it where precision was lowered


class TorchCodebook:
    """A codebook's centroids on `device`. All tensors that go in and come out are there."""

    def __init__(self, codebook: Codebook, device: torch.device | str = "cpu") -> None:
        self.generation = codebook.generation
        self.subspaces, self.size, self.width, self.dim = codebook.subspaces, codebook.size, codebook.width, codebook.dim
        self.centroids = torch.tensor(codebook.centroids, device=device)  # (P, C, w)
        norms = self.centroids.double().square().sum(2)  # (P, C)
        self._longest = norms.amax(1).sqrt()[:, None]  # (P, 1)
        folded = torch.cat([self.centroids, (-norms / 2).float().unsqueeze(2)], 2)  # (P, C, w + 1)
        self._folded = folded.transpose(1, 2).contiguous()
        self._cells = _CACHED if self.device.type == "cpu" else _CELLS

    @property
    def device(self) -> torch.device:
        """Where all of it happens."""
        return self.centroids.device

    @torch.inference_mode()
    def encode(self, vectors: Tensor) -> Tensor:
        """Codes (n, P) uint8 of vectors (n, d) float32.

        Raises:
            ValueError: another d, or a vector that is not finite.
        """
        parts = self._parts(vectors)  # (P, n, w)
        rows = max(1, self._cells // (self.subspaces * self.size))
        codes = [self._nearest(parts[:, start : start + rows]) for start in range(0, parts.shape[1], rows)]
        return torch.cat(codes, 1).T.contiguous() if codes else torch.empty(0, self.subspaces, dtype=torch.uint8, device=self.device)

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """The vectors (n, d) that codes (n, P) stand for."""
        at = torch.arange(self.subspaces, device=self.device)
        return self.centroids[at, codes.long()].reshape(len(codes), self.dim)

    @torch.inference_mode()
    def tables(self, queries: Tensor) -> Tensor:
        """Asymmetric inner-product tables (B, P, C) of queries (B, d)."""
        parts, centroids = self._parts(queries), self.centroids.transpose(1, 2)  # (P, B, w), (P, w, C)
        if torch.get_float32_matmul_precision() != "highest":
            parts, centroids = parts.double(), centroids.double()
        return torch.bmm(parts, centroids).float().transpose(0, 1).contiguous()

    @torch.inference_mode()
    def scores(self, tables: Tensor, codes: Tensor) -> Tensor:
        """Scores (B, n) of codes (n, P) by look-up in tables (B, P, C)."""
        total = torch.zeros(len(tables), len(codes), device=self.device)
        for p, numbers in enumerate(codes.T.long()):
            total += tables[:, p].index_select(1, numbers)
        return total

    @torch.inference_mode()
    def best(self, tables: Tensor, codes: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best scores (B, k) of codes (n, P) and their rows (B, k) int64, best first; of fewer codes all. Ties in any order."""
        scores = torch.empty(len(tables), 0, device=self.device)
        rows = torch.empty(len(tables), 0, dtype=torch.int64, device=self.device)
        step = max(k, _CELLS // max(1, len(tables)))
        for start in range(0, len(codes), step):
            here = self.scores(tables, codes[start : start + step])
            top = here.topk(min(k, here.shape[1]), dim=1)
            scores, rows = torch.cat([scores, top.values], 1), torch.cat([rows, top.indices + start], 1)
            best = scores.topk(min(k, scores.shape[1]), dim=1)
            scores, rows = best.values, rows.gather(1, best.indices)
        return scores, rows

    def _parts(self, vectors: Tensor) -> Tensor:
        """Vectors (n, d) as parts (P, n, w)."""
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(f"vectors must be (n, {self.dim}), got {tuple(vectors.shape)}")
        if not bool(torch.isfinite(vectors).all()):
            raise ValueError("vectors must be finite")
        return vectors.float().view(-1, self.subspaces, self.width).transpose(0, 1)

    def _nearest(self, parts: Tensor) -> Tensor:
        """Codes (P, m) uint8 of parts (P, m, w)."""
        nearness = torch.bmm(torch.cat([parts, parts.new_ones(*parts.shape[:2], 1)], 2), self._folded)  # (P, m, C)
        best = nearness.argmax(2, keepdim=True)  # (P, m, 1)
        top = nearness.gather(2, best)[..., 0]
        second = nearness.scatter_(2, best, float("-inf")).amax(2)
        best = best[..., 0]
        unsure = ~(second < top - self._doubt(parts))  # what is not a number is unsure too
        p, row = unsure.nonzero(as_tuple=True)
        for start in range(0, len(p), _UNSURE):
            at = p[start : start + _UNSURE], row[start : start + _UNSURE]
            best[at] = self._distances(parts[at], at[0]).argmin(1)
        return best.to(torch.uint8)

    def _doubt(self, parts: Tensor) -> Tensor:
        """How far (P, m) two values of nearness must lie apart to be told apart, in float64."""
        unit = _FINE if torch.get_float32_matmul_precision() == "highest" else _COARSE
        reach = parts.double().square().sum(2).sqrt() * (1 + 2.0**-16) + self._longest
        found: Tensor = (self.width + 4) * (unit * reach * self._longest + 2.0**-50 * reach * reach + 1e-36)
        return found

    def _distances(self, parts: Tensor, p: Tensor) -> Tensor:
        """Squared distances (u, C) in float64 of parts (u, w) of sub-spaces p (u,), summed in the order of the dimensions."""
        centroids = self.centroids[p].double()  # (u, C, w)
        total = torch.zeros(centroids.shape[:2], dtype=torch.float64, device=self.device)
        for column in range(self.width):
            apart = parts[:, column, None].double() - centroids[:, :, column]
            total += apart * apart
        return total

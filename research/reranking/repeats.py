"""How often, how long ago and by what a user had a candidate, and its category: counts, no training.

A candidate's events are found by its number, not by its vector: SIM's hard search, next to the soft search of GSU and ESU.
"""

import torch
from torch import Tensor

from features.event_time import DAY_MS, MINUTE_MS
from features.rows import KINDS
from models.encoding.vocabulary import FIRST
from models.serving.repeat import SCALES_MS, WEIGHTS

FADES_S = (60 * MINUTE_MS / 1000, DAY_MS / 1000, 30 * DAY_MS / 1000)  # an event counts 1 / sqrt(1 + age / s), for each s
LEAST = 1e-3  # what an item of no event is worth, so that it has a logarithm
FEATURES = len(KINDS) * len(FADES_S) + len(FADES_S) + 7


class RerankBatch:
    """Histories and candidates of B users on a device: what repeats and attention are computed from."""

    def __init__(self, history: list[Tensor], candidates: list[Tensor]) -> None:
        """`history` and `candidates` are the arrays of Histories and Candidates, in their order."""
        self.item, self.number, self.category, self.kind, self.gap, self.age = history  # (B, L) each
        self.asked_item, self.asked_number, self.asked_category, self.here = candidates  # (B, C) each

    @property
    def mask(self) -> Tensor:
        """Which events are there: (B, L)."""
        return self.kind > 0


def repeats(asked: RerankBatch) -> Tensor:
    """(B, C, FEATURES) float32, each about 0 to 3.

    By kind and fade ln(1 + 4 times the faded count) of the item; by fade the same of its category, all kinds; ln(1 + count)
    of both; 1 / (1 + events since) of the item's newest; whether it was had; ln(1 + events) / 5 of the user and the share of
    them that repeat an item; ln of what models.serving.repeat gives the item, / 3.
    """
    mask = asked.mask
    same = ((asked.asked_number[:, :, None] == asked.number[:, None, :]) & mask[:, None]).float()  # (B, C, L)
    alike = asked.asked_category[:, :, None] == asked.category[:, None, :]  # (B, C, L)
    alike = (alike & (asked.asked_category[:, :, None] >= FIRST) & mask[:, None]).float()
    faded = _faded(asked.age, asked.age.new_tensor(FADES_S)) * mask.unsqueeze(-1)  # (B, L, F)
    kinds = torch.stack([asked.kind == kind for kind in range(1, len(KINDS) + 1)], -1).float()  # (B, L, K)
    by_kind = (kinds.unsqueeze(-1) * faded.unsqueeze(2)).flatten(2)  # (B, L, K F)
    count, of_category = same.sum(2), alike.sum(2)  # (B, C)
    since = _since(same, mask)  # (B, C)
    columns = [count.log1p(), of_category.log1p(), since, (count > 0).float(), *_of_user(asked, count)]
    worth = (LEAST + (same @ _worth(asked).unsqueeze(-1)).squeeze(-1)).log() / 3  # (B, C)
    parts = ((4 * (same @ by_kind)).log1p(), (4 * (alike @ faded)).log1p(), torch.stack([*columns, worth], -1))
    return torch.cat(parts, -1)  # (B, C, FEATURES)


def _faded(age: Tensor, scale: Tensor) -> Tensor:
    """1 / sqrt(1 + age / s): (B, L), (F,) -> (B, L, F)."""
    return (1 + age.unsqueeze(-1) / scale).rsqrt()


def _worth(asked: RerankBatch) -> Tensor:
    """What each event adds to the worth of its item: (B, L)."""
    kind = (asked.kind - 1).clamp(min=0)
    weight, scale = asked.age.new_tensor(WEIGHTS), asked.age.new_tensor(SCALES_MS) / 1000
    return weight[kind] * (1 + asked.age / scale[kind]).rsqrt() * asked.mask


def _since(same: Tensor, mask: Tensor) -> Tensor:
    """1 / (1 + events after the newest of the candidate), 0 where there is none: (B, C, L), (B, L) -> (B, C)."""
    last = (same * torch.arange(1, same.shape[2] + 1, device=same.device)).amax(2)  # (B, C)
    return (last > 0) / (1 + mask.sum(1, keepdim=True) - last)


def _of_user(asked: RerankBatch, count: Tensor) -> tuple[Tensor, Tensor]:
    """What all candidates of a user share: (B, C) each."""
    total = asked.mask.sum(1)  # (B,)
    again = (asked.number[:, :, None] == asked.number[:, None, :]) & asked.mask[:, None] & asked.mask[:, :, None]  # (B, L, L)
    repeated = again.tril(-1).any(2).sum(1) / total.clamp(min=1)  # (B,)
    return (total.float().log1p() / 5).unsqueeze(1).expand_as(count), repeated.unsqueeze(1).expand_as(count)

"""The devices a training runs on: the precision of its products, and processes that train one network together (torchrun).

Each rank computes a slice of every batch, gradients are averaged. A step equals that of one process over the joined batch if the
loss is a mean of what each example contributes by itself. What examples share inside a batch they share inside a slice only: negatives
of a sampled softmax are the targets of the slice and the draws of its rank. So R ranks with batch B see B / R in-batch negatives and R
independent draws of the others; logQ corrects for the size of the slice, so the gradient stays an estimate of the same loss.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from models.errors import RanksDifferError


class Precision:
    """Weights and their updates are float32 always; `half` is what products of matrices are computed in, None: float32 too.

    With float16 the loss is scaled, so that small gradients are not lost; a step whose gradient overflows is left out.
    """

    def __init__(self, device: torch.device, half: torch.dtype | None) -> None:
        self.half = half
        self._device = device.type
        self.scaler = GradScaler(device.type, enabled=half == torch.float16)

    @classmethod
    def of(cls, device: torch.device) -> "Precision":
        """What suits a device: bfloat16 on CUDA that computes in it, float16 on older CUDA, float32 elsewhere."""
        if device.type != "cuda":
            return cls(device, None)
        return cls(device, torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16)

    @property
    def name(self) -> str:
        """What products of matrices are computed in: float32, bfloat16 or float16."""
        return str(self.half or torch.float32).removeprefix("torch.")

    def computing(self) -> torch.autocast:
        """The context that a loss is computed in."""
        return torch.autocast(self._device, self.half, enabled=self.half is not None)

    def backward(self, loss: Tensor) -> None:
        """Gradients of the scaled loss; none if the loss depends on no parameter, as that of an empty slice."""
        scaled = self.scaler.scale(loss)
        if scaled.requires_grad:
            scaled.backward()


class Ranks:
    """This process among `size` that train together; alone, nothing is sent and no number changes."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @property
    def leads(self) -> bool:
        """Whether this is the one process that writes, prints and saves."""
        return self.rank == 0

    def mine(self, batch: np.ndarray) -> np.ndarray:
        """This rank's slice of a batch (B,); slices differ by one example at most, the last may be empty."""
        return np.array_split(batch, self.size)[self.rank]

    def stream(self, rng: np.random.Generator, key: int, step: int) -> np.random.Generator:
        """What this rank draws from in a step: alone `rng` itself; else its own stream, torch's generator with it."""
        if self.size == 1:
            return rng
        own = np.random.default_rng([key, step, self.rank])
        torch.manual_seed(int(own.integers(2**62)))
        return own

    def key(self, rng: np.random.Generator) -> int:
        """What an epoch's own streams follow from; alone nothing is drawn."""
        return 0 if self.size == 1 else int(rng.integers(2**62))

    def average(self, parameters: Sequence[nn.Parameter], loss: Tensor, share: float) -> float:
        """Replace gradients by those of all ranks, each weighed by its `share` of the batch; the mean loss likewise.

        A parameter that no rank has a gradient of keeps none. One message a step.
        """
        if self.size == 1:
            return loss.item()
        parts = [torch.zeros_like(p) if p.grad is None else p.grad * share for p in parameters]
        there = torch.tensor([float(p.grad is not None) for p in parameters], device=loss.device)  # (parameters,)
        flat = torch.cat([*(part.reshape(-1) for part in parts), there, (loss.detach() * share).reshape(1)])
        dist.all_reduce(flat)
        *averaged, there, loss = flat.split([*(p.numel() for p in parameters), len(parameters), 1])
        for parameter, part, count in zip(parameters, averaged, there.tolist(), strict=True):
            parameter.grad = part.view_as(parameter) if count else None
        return loss.item()

    def share(self, content: bytes | None) -> bytes | None:
        """What rank 0 has, for every rank."""
        if self.size == 1:
            return content
        length = torch.tensor([-1 if content is None else len(content)])
        dist.broadcast(length, 0)
        if (count := int(length.item())) < 0:
            return None
        buffer = torch.empty(count, dtype=torch.uint8)
        if self.leads and content:
            buffer = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        dist.broadcast(buffer, 0)
        return buffer.numpy().tobytes()

    def agree(self, about: Mapping[str, str]) -> None:
        """Compare what all ranks learn. Where it is not the same, all of them raise: none goes on and waits for another.

        Raises:
            RanksDifferError: it is not the same.
        """
        if self.size == 1:
            return
        every: list[Mapping[str, str]] = [{}] * self.size
        dist.all_gather_object(every, dict(about))
        for rank, other in enumerate(every):
            if differ := [name for name in {**every[0], **other} if every[0].get(name) != other.get(name)]:
                raise RanksDifferError(rank, {name: (every[0].get(name), other.get(name)) for name in differ})


def own_card() -> str:
    """The CUDA device of this process: under `torchrun` that of its number on the machine, so that none touches another's."""
    return f"cuda:{dist.get_node_local_rank()}" if dist.is_torchelastic_launched() else "cuda"


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The ranks of this `torchrun`, this one on `device` (`own_card` or another kind); alone outside of it.

    A rank that raises leaves at once and waits for nobody: `torchrun` ends the others. What `Ranks.agree` raises all of
    them raise, so they take leave of each other first.

    Raises:
        RanksDifferError: their devices are of several kinds.
    """
    if not dist.is_torchelastic_launched():
        yield Ranks()
        return
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo")
    ranks = Ranks(dist.get_rank(), dist.get_world_size())
    try:
        ranks.agree({"device": kind})
        yield ranks
    except RanksDifferError:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()

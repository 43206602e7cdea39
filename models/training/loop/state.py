"""All that a phase changes while it runs, as arrays and plain values: taken at one moment, put back in another process."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor, nn

from models.training.loop.optimising import Optimising

PLAIN = "plain"


class Place(NamedTuple):
    """Where a phase stands: batches done of an epoch, steps in all, mean loss; `began`: the generator at the epoch's start."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    recent: float = 0.0
    began: dict[str, Any] | None = None


class State:
    """The weights, the optimiser and the random generators of a running phase."""

    def __init__(self, module: nn.Module, optimising: Optimising, rng: np.random.Generator, device: torch.device) -> None:
        self._module = module
        self._optimising = optimising
        self._rng = rng
        self._device = device

    def pack(self, place: Place, about: Mapping[str, str], done: bool) -> bytes:
        """The state as one file of safetensors; that of a phase that is `done` holds no optimiser."""
        tensors = {f"weights/{name}": tensor for name, tensor in self._module.state_dict().items()} | self._generators()
        plain = {"about": dict(about), "done": done, "place": place._asdict(), "rng": self._rng.bit_generator.state}
        if not done:
            adam = self._optimising.adam.state_dict()
            tensors |= {f"adam/{n}/{name}": value for n, moments in adam["state"].items() for name, value in moments.items()}
            plain |= {"groups": adam["param_groups"], "schedule": self._optimising.schedule.state_dict()}
            plain |= {"scaler": self._optimising.precision.scaler.state_dict()}
        arrays = {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in tensors.items()}
        arrays[PLAIN] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
        return safetensors.numpy.save(arrays)

    def weights(self) -> list[np.ndarray]:
        """The weights, in the order of the module."""
        return [tensor.cpu().numpy() for tensor in self._module.state_dict().values()]

    def unpack(self, saved: "Saved") -> None:
        """Put a packed state back."""
        tensors = {name: torch.from_numpy(array) for name, array in saved.arrays.items()}
        self._module.load_state_dict(_of("weights", tensors))
        self._rng.bit_generator.state = saved.plain["rng"]
        torch.set_rng_state(tensors["generator/cpu"])
        if self._device.type == "cuda" and "generator/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["generator/cuda"], self._device)
        if saved.done:
            return
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _of("adam", tensors).items():
            n, _, what = name.partition("/")
            moments.setdefault(int(n), {})[what] = tensor
        self._optimising.adam.load_state_dict({"state": moments, "param_groups": saved.plain["groups"]})
        self._optimising.schedule.load_state_dict(saved.plain["schedule"])
        self._optimising.precision.scaler.load_state_dict(saved.plain["scaler"])

    def _generators(self) -> dict[str, Tensor]:
        found = {"generator/cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            found["generator/cuda"] = torch.cuda.get_rng_state(self._device)
        return found


class Saved(NamedTuple):
    """A packed state, read."""

    arrays: dict[str, np.ndarray]
    plain: dict[str, Any]

    @classmethod
    def read(cls, content: bytes) -> "Saved":
        """What `State.pack` wrote.

        Raises:
            safetensors.SafetensorError, KeyError, ValueError: it is something else.
        """
        arrays = safetensors.numpy.load(content)
        return cls(arrays, json.loads(arrays.pop(PLAIN).tobytes()))

    @property
    def about(self) -> dict[str, str]:
        """What it is a state of."""
        return dict(self.plain["about"])

    @property
    def done(self) -> bool:
        """Whether the phase was at its end."""
        return bool(self.plain["done"])

    @property
    def place(self) -> Place:
        """Where it stood."""
        return Place(**self.plain["place"])


def _of(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.partition("/")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{kind}/")}

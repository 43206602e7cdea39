"""Checkpoints: a training that was killed resumes from the latest one and ends with the same weights, bit for bit on a CPU.

One file per phase, replaced atomically. That of a finished phase holds its weights, so that the phase is not run again.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
import torch
from torch import Tensor, nn

from models.errors import CheckpointError
from models.training.phase import Optimising

PLAIN = "plain"


class CheckpointPlace(NamedTuple):
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

    def pack(self, place: CheckpointPlace, about: Mapping[str, str], done: bool) -> bytes:
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

    def unpack(self, saved: "SavedTraining") -> None:
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


class SavedTraining(NamedTuple):
    """A packed state, read."""

    arrays: dict[str, np.ndarray]
    plain: dict[str, Any]

    @classmethod
    def read(cls, content: bytes) -> "SavedTraining":
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
    def place(self) -> CheckpointPlace:
        """Where it stood."""
        return CheckpointPlace(**self.plain["place"])


def _of(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.partition("/")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{kind}/")}


class Checkpoints:
    """The checkpoints of one training in `directory`, which is made when the first is written.

    Args:
        directory: of this training alone.
        about: what the training is (configuration, seed, ...), each by name: a checkpoint with another of them is refused.
        every_s: a checkpoint is due after so many seconds.
        every_steps: and after so many steps, where not 0.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        directory: Path,
        about: Mapping[str, str],
        every_s: float = 60.0,
        every_steps: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory = Path(directory)
        self._about = dict(about)
        self._every_s = every_s
        self._every_steps = every_steps
        self._clock = clock
        self._newest = clock()
        self._phases = 0

    def next_phase(self, name: str) -> Path:
        """The file of the phase that comes now: phases are counted in the order in which they come."""
        self._phases += 1
        return self.directory / f"{self._phases}-{re.sub(r'[^a-z0-9]+', '-', name.lower())}.safetensors"

    def about(self, phase: Mapping[str, str]) -> dict[str, str]:
        """What the training and one phase of it are."""
        return self._about | dict(phase)

    def due(self, step: int) -> bool:
        """Whether the state after this step is to be written."""
        return self._clock() - self._newest >= self._every_s or bool(self._every_steps and step % self._every_steps == 0)

    def write(self, path: Path, content: bytes) -> None:
        """Replace the checkpoint: after a crash either the old or the new one is there, complete."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        self._newest = self._clock()

    def read(self, path: Path) -> bytes | None:
        """The newest checkpoint of a phase, None where there is none."""
        return path.read_bytes() if path.exists() else None


def accept(path: Path, content: bytes, about: Mapping[str, str]) -> SavedTraining:
    """A checkpoint, read and compared.

    Raises:
        CheckpointError: it is of another training, or no checkpoint.
    """
    try:
        saved = SavedTraining.read(content)
        found = saved.about
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(path, f"cannot be read ({error})") from error
    differ = [name for name in {**about, **found} if found.get(name) != about.get(name)]
    if differ:
        listed = ", ".join(f"{name} {found.get(name)} and not {about.get(name)}" for name in differ)
        raise CheckpointError(path, f"is of another training ({listed})")
    return saved


def digest(arrays: Iterable[np.ndarray]) -> str:
    """16 hex digits that name the arrays: their types, shapes and bytes."""
    hashed = blake2b(digest_size=8)
    for array in arrays:
        hashed.update(f"{array.dtype.str}{array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return hashed.hexdigest()

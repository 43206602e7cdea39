"""Checkpoints: a training that was killed goes on from the newest one and ends with the same weights, bit for bit on a CPU.

One file a phase, replaced atomically: that of a finished phase holds its weights, so that it is not run again.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from pathlib import Path

import numpy as np
import safetensors

from models.errors import CheckpointError
from models.training.loop.state import Saved


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
        """Write a checkpoint in the place of the one before: after a crash one of the two is there, whole."""
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


def accept(path: Path, content: bytes, about: Mapping[str, str]) -> Saved:
    """A checkpoint, read and compared.

    Raises:
        CheckpointError: it is of another training, or no checkpoint.
    """
    try:
        saved = Saved.read(content)
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

"""What a loop is told to learn, and what it tells of it."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor


class Progress(NamedTuple):
    """How far a training is: a sentence for the phase, steps done and to do, mean loss of the newest steps."""

    phase: str
    step: int
    steps: int
    loss: float
    learning_rate: float = 0.0  # of this step
    examples: int = 0  # of this step


Tell = Callable[[Progress], None]


class Phase(NamedTuple):
    """One pass of the loop. All that is random in it comes from the generator that is handed in and from torch's.

    `batches` gives those of one epoch, positions (B,) of examples, and draws from the generator before the first of them
    only; `loss` gives the mean loss of a batch, a scalar, and may draw.
    """

    name: str
    batches: Callable[[np.random.Generator], Iterable[np.ndarray]]
    loss: Callable[[np.ndarray, np.random.Generator], Tensor]
    per_epoch: int  # batches of an epoch
    epochs: int
    learning_rate: float  # the highest of the schedule
    settings: str = ""  # all that `loss` and `batches` were made with
    learnt_from: Sequence[np.ndarray] = ()  # the data; a checkpoint is compared by both
    fused: bool = False  # one kernel a step: faster for large tables, and other last bits

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.epochs * self.per_epoch

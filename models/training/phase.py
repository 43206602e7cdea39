"""One phase of a training: what it learns, its progress, and its optimiser: Adam under a one-cycle schedule, with clipped gradients."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from models.training.devices import Precision


class TrainingProgress(NamedTuple):
    """How far a training is: a sentence for the phase, steps done and to do, mean loss of the newest steps."""

    phase: str
    step: int
    steps: int
    loss: float
    learning_rate: float = 0.0  # of this step
    examples: int = 0  # of this step


Tell = Callable[[TrainingProgress], None]


class Phase(NamedTuple):
    """One run of the training loop. All its randomness comes from the given generator and from torch's.

    `batches` yields the batches of one epoch, positions (B,) of examples, and draws from the generator only before the first of
    them; `loss` returns the mean loss of a batch, a scalar, and may draw.
    """

    name: str
    batches: Callable[[np.random.Generator], Iterable[np.ndarray]]
    loss: Callable[[np.ndarray, np.random.Generator], Tensor]
    per_epoch: int  # batches of an epoch
    epochs: int
    learning_rate: float  # the highest of the schedule
    settings: str = ""  # all that `loss` and `batches` were made with
    data: Sequence[np.ndarray] = ()  # what is trained on; a checkpoint must agree in both
    fused: bool = False  # one kernel a step: faster for large tables, and other last bits

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.epochs * self.per_epoch


LONGEST = 1.0  # norm to which the gradient is clipped
WARM_UP = 0.1  # share of the steps in which the learning rate rises


class Optimising:
    """The optimiser and the schedule of one phase over its parameters."""

    def __init__(self, parameters: Iterable[nn.Parameter], phase: Phase, precision: Precision) -> None:
        self.parameters = list(parameters)
        self.precision = precision
        self.adam = torch.optim.Adam(self.parameters, lr=phase.learning_rate, fused=phase.fused or None)
        steps = max(1, phase.steps)
        warm_up = WARM_UP if steps * WARM_UP != 1 else 1.5 * WARM_UP  # OneCycleLR divides by the steps of the rise less one
        self.schedule = OneCycleLR(self.adam, phase.learning_rate, total_steps=steps, pct_start=warm_up)

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(self.adam.param_groups[0]["lr"])

    def step(self) -> None:
        """Unscale and clip the gradients, move the parameters, then the learning rate."""
        scaler = self.precision.scaler
        scaler.unscale_(self.adam)
        torch.nn.utils.clip_grad_norm_(self.parameters, LONGEST)
        scaler.step(self.adam)
        scaler.update()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")  # a first step that the scaler left out
            self.schedule.step()

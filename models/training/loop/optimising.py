"""Adam under a one-cycle schedule, with clipped gradients: what every network here is trained with."""

import warnings
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from models.training.loop.phase import Phase
from models.training.loop.precision import Precision

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

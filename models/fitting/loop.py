"""The one training loop."""

import numpy as np
from torch import nn

from models.fitting.optimising import Optimising
from models.fitting.phase import Phase, Progress, Tell

NEWEST = 0.05  # weight of the newest step in the mean loss that is told


def fit(module: nn.Module, phase: Phase, rng: np.random.Generator, tell: Tell = lambda _: None) -> None:
    """Train `module` on its device for all epochs of the phase; it is left in evaluation mode.

    The same weights, phase, state of `rng` and of torch's generator give the same weights on one machine and thread count.
    """
    module.train()
    optimising = Optimising(module.parameters(), phase)
    step, recent = 0, 0.0
    for _ in range(phase.epochs):
        for batch in phase.batches(rng):
            rate = optimising.learning_rate
            loss = phase.loss(batch, rng)
            optimising.adam.zero_grad(set_to_none=True)
            loss.backward()
            optimising.step()
            step += 1
            recent = loss.item() if step == 1 else (1 - NEWEST) * recent + NEWEST * loss.item()
            tell(Progress(phase.name, step, phase.steps, recent, rate, len(batch)))
    module.eval()

"""The one training loop."""

import numpy as np
import torch
from torch import nn

from models.training.loop.keeping import Keeping
from models.training.loop.optimising import Optimising
from models.training.loop.phase import Phase, Progress, Tell
from models.training.loop.precision import Precision
from models.training.loop.ranks import Ranks
from models.training.loop.run import Run
from models.training.loop.state import Place, State

NEWEST = 0.05  # weight of the newest step in the mean loss that is told


def fit(module: nn.Module, phase: Phase, rng: np.random.Generator, tell: Tell = lambda _: None, run: Run | None = None) -> None:
    """Train `module` on its device for all epochs of the phase; it is left in evaluation mode.

    The same weights, phase, state of `rng` and of torch's generator give the same weights on one machine and thread count,
    whether or not the run was broken off and resumed between. A phase that the run's checkpoints hold whole is not run again.

    Raises:
        CheckpointError: the checkpoint of this phase is of another training.
    """
    run = run or Run()
    device = next(module.parameters()).device
    module.train()
    precision = run.precision or Precision.of(device)
    optimising = Optimising(module.parameters(), phase, precision)
    keeping = Keeping(run, phase, State(module, optimising, rng, device), precision)
    resumed = keeping.resume()
    if resumed is None:
        _epochs(phase, rng, tell, run.ranks, optimising, keeping, Place())
    elif not resumed.done:
        _epochs(phase, rng, tell, run.ranks, optimising, keeping, resumed.place)
    module.eval()


def _epochs(
    phase: Phase, rng: np.random.Generator, tell: Tell, ranks: Ranks, optimising: Optimising, keeping: Keeping, place: Place
) -> None:
    for epoch in range(place.epoch, phase.epochs):
        reached = rng.bit_generator.state
        if place.began is not None:
            rng.bit_generator.state = place.began
        began = dict(rng.bit_generator.state)
        key, batches = ranks.key(rng), list(phase.batches(rng))
        if place.batch:  # resumed inside this epoch
            rng.bit_generator.state = reached
        for at in range(place.batch, len(batches)):
            rate, step = optimising.learning_rate, place.step + 1
            loss = _step(phase, batches[at], ranks.stream(rng, key, step), ranks, optimising)
            recent = loss if step == 1 else (1 - NEWEST) * place.recent + NEWEST * loss
            place = Place(epoch, at + 1, step, recent, began)
            tell(Progress(phase.name, step, phase.steps, recent, rate, len(batches[at])))
            keeping.keep(place)
        place = place._replace(batch=0, began=None)
    keeping.finish(place)


def _step(phase: Phase, batch: np.ndarray, rng: np.random.Generator, ranks: Ranks, optimising: Optimising) -> float:
    """One step of all ranks; the mean loss of the joint batch."""
    mine = ranks.mine(batch)
    optimising.adam.zero_grad(set_to_none=True)
    loss = torch.zeros((), device=optimising.parameters[0].device)
    if len(mine):
        with optimising.precision.computing():
            loss = phase.loss(mine, rng)
    optimising.precision.backward(loss)
    mean = ranks.average(optimising.parameters, loss, len(mine) / len(batch))
    optimising.step()
    return mean

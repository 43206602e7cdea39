"""The one training loop: `fit` trains a network through a `Phase` of a `Run`, from the latest checkpoint on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from models.training.checkpoints import CheckpointPlace, Checkpoints, SavedTraining, State, accept, digest
from models.training.devices import Precision, Ranks
from models.training.phase import Optimising, Phase, Tell, TrainingProgress


@dataclass(frozen=True)
class Run:
    """One training of one or more phases. As it is: nothing is kept, this process is alone, the device says how precise."""

    checkpoints: Checkpoints | None = None
    ranks: Ranks = field(default_factory=Ranks)
    precision: Precision | None = None


class Keeping:
    """What a phase does with the checkpoints of its run, nothing where it keeps none. Ranks are compared before and after.

    Raises:
        RanksDifferError: they do not begin with the same weights, data and settings.
    """

    def __init__(self, run: Run, phase: Phase, state: State, precision: Precision) -> None:
        self._ranks = run.ranks
        self._state = state
        self._checkpoints = run.checkpoints
        if run.checkpoints is not None:
            self._path = run.checkpoints.next_phase(phase.name)
            self._about = run.checkpoints.about(_about(phase) | {"processes": str(run.ranks.size), "precision": precision.name})
        self._compare(_about(phase))

    def resume(self) -> SavedTraining | None:
        """Put back the newest checkpoint, the same on all ranks; None where the phase is to start.

        Raises:
            CheckpointError: it is of another training.
        """
        if self._checkpoints is None:
            return None
        content = self._ranks.share(self._checkpoints.read(self._path) if self._ranks.leads else None)
        if content is None:
            return None
        saved = accept(self._path, content, self._about)
        self._state.unpack(saved)
        return saved

    def keep(self, place: CheckpointPlace) -> None:
        """Write a checkpoint if one is due."""
        if self._checkpoints is not None and self._ranks.leads and self._checkpoints.due(place.step):
            self._checkpoints.write(self._path, self._state.pack(place, self._about, done=False))

    def finish(self, place: CheckpointPlace) -> None:
        """Write the last one.

        Raises:
            RanksDifferError: the ranks do not end with the same weights.
        """
        self._compare({})
        if self._checkpoints is not None and self._ranks.leads:
            self._checkpoints.write(self._path, self._state.pack(place, self._about, done=True))

    def _compare(self, about: Mapping[str, str]) -> None:
        """Raise RanksDifferError if the ranks have other weights, or differ in `about`."""
        if self._ranks.size > 1:
            self._ranks.agree({**about, "weights": digest(self._state.weights())})


def _about(phase: Phase) -> dict[str, str]:
    return {
        "phase": phase.name,
        "steps": f"{phase.epochs} x {phase.per_epoch}",
        "learning rate": repr(phase.learning_rate),
        "settings": phase.settings,
        "data": digest(phase.data),
    }


NEWEST = 0.05  # weight of the newest step in the mean loss that is reported


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
        _epochs(phase, rng, tell, run.ranks, optimising, keeping, CheckpointPlace())
    elif not resumed.done:
        _epochs(phase, rng, tell, run.ranks, optimising, keeping, resumed.place)
    module.eval()


def _epochs(
    phase: Phase, rng: np.random.Generator, tell: Tell, ranks: Ranks, optimising: Optimising, keeping: Keeping, place: CheckpointPlace
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
            place = CheckpointPlace(epoch, at + 1, step, recent, began)
            tell(TrainingProgress(phase.name, step, phase.steps, recent, rate, len(batches[at])))
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

"""One phase and its checkpoints: resumed from the newest, written when due by the rank that leads, finished."""

from collections.abc import Mapping

from models.training.loop.checkpoints import accept, digest
from models.training.loop.phase import Phase
from models.training.loop.precision import Precision
from models.training.loop.run import Run
from models.training.loop.state import Place, Saved, State


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

    def resume(self) -> Saved | None:
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

    def keep(self, place: Place) -> None:
        """Write a checkpoint if one is due."""
        if self._checkpoints is not None and self._ranks.leads and self._checkpoints.due(place.step):
            self._checkpoints.write(self._path, self._state.pack(place, self._about, done=False))

    def finish(self, place: Place) -> None:
        """Write the last one.

        Raises:
            RanksDifferError: the ranks do not end with the same weights.
        """
        self._compare({})
        if self._checkpoints is not None and self._ranks.leads:
            self._checkpoints.write(self._path, self._state.pack(place, self._about, done=True))

    def _compare(self, about: Mapping[str, str]) -> None:
        """Weights and what is learnt, those of all ranks."""
        if self._ranks.size > 1:
            self._ranks.agree({**about, "weights": digest(self._state.weights())})


def _about(phase: Phase) -> dict[str, str]:
    return {
        "phase": phase.name,
        "steps": f"{phase.epochs} x {phase.per_epoch}",
        "learning rate": repr(phase.learning_rate),
        "settings": phase.settings,
        "data": digest(phase.learnt_from),
    }

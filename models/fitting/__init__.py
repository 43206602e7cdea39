"""How any network here is trained: a `Phase` says what is learnt, `fit` is the one loop that does it, in a `Run`."""

from models.fitting.checkpoints import CheckpointRefused, Checkpoints
from models.fitting.loop import fit
from models.fitting.phase import Phase, Progress, Tell
from models.fitting.ranks import Ranks, RanksDiffer, joined, own_card
from models.fitting.run import Run

__all__ = ["CheckpointRefused", "Checkpoints", "Phase", "Progress", "Ranks", "RanksDiffer", "Run", "Tell", "fit", "joined", "own_card"]

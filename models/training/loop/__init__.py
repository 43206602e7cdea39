"""How any network here is trained: a `Phase` says what is learnt, `fit` is the one loop that does it, in a `Run`."""

from models.training.loop.checkpoints import CheckpointRefused, Checkpoints
from models.training.loop.loop import fit
from models.training.loop.phase import Phase, Progress, Tell
from models.training.loop.ranks import Ranks, RanksDiffer, joined, own_card
from models.training.loop.run import Run

__all__ = ["CheckpointRefused", "Checkpoints", "Phase", "Progress", "Ranks", "RanksDiffer", "Run", "Tell", "fit", "joined", "own_card"]

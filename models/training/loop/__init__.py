"""How any network here is trained: a `Phase` says what is learnt, `fit` is the one loop that does it, in a `Run`."""

from models.training.loop.checkpoints import Checkpoints
from models.training.loop.loop import fit
from models.training.loop.phase import Phase, Progress, Tell
from models.training.loop.ranks import Ranks, joined, own_card
from models.training.loop.run import Run

__all__ = ["Checkpoints", "Phase", "Progress", "Ranks", "Run", "Tell", "fit", "joined", "own_card"]

"""How any network here is trained: a `Phase` says what is learnt, `fit` is the one loop that does it."""

from models.fitting.loop import fit
from models.fitting.phase import Phase, Progress, Tell

__all__ = ["Phase", "Progress", "Tell", "fit"]

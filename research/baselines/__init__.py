"""Trained baselines out of a maintained library (extra `baselines`), all behind one door: `open_rival`.

The models are the library's; what is ours feeds them, tunes them within one budget, and ranks the full catalogue with them.
Importing this package imports no library.
"""

from research.baselines.contract import Budget, Event, Rival, RivalHistory, RivalUser
from research.baselines.opening import NAMES, open_rival

__all__ = ["NAMES", "Budget", "Event", "Rival", "RivalHistory", "RivalUser", "open_rival"]

"""Trained baselines from a maintained library (extra `baselines`), opened by `open_rival`.

The networks are the library's; this package feeds them, tunes them within one budget, and ranks the full catalogue with them.
Importing it does not import the library.
"""

from research.baselines.contract import Budget, Event, Rival, RivalHistory, RivalUser, ValidationAnswer
from research.baselines.opening import NAMES, open_rival

__all__ = ["NAMES", "Budget", "Event", "Rival", "RivalHistory", "RivalUser", "ValidationAnswer", "open_rival"]

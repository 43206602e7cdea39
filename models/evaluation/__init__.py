"""How good recommenders are on what was held out: splits, questions, contenders, metrics, intervals, tables.

Nothing held out can be trained on: a `Split` hands training a history that does not contain it, and whatever is fitted, ours or
a baseline, is fitted on that history alone.
"""

from models.evaluation.report import Report, compact, evaluate
from models.evaluation.split import Split, by_users, temporal

__all__ = ["Report", "Split", "by_users", "compact", "evaluate", "temporal"]

"""Errors of studies: test sets, judgements, ablations and the library of baselines.

EverlongError
    SeenInTrainingError, NoTestError, JudgementsError, UnknownRowError, MissingExtraError
"""

from features.errors import EverlongError


class SeenInTrainingError(EverlongError):
    """The bundle was trained on what would be tested; the message names the remedy."""


class NoTestError(EverlongError):
    """The file has no click after a query before the cut, or none from it on."""


class JudgementsError(EverlongError):
    """The file has no column of queries, titles or grades, or nothing in them."""


class UnknownRowError(EverlongError):
    """An unknown row of the ablation; the message lists those that exist."""


class MissingExtraError(EverlongError):
    """The library of the trained baselines is not installed; the message names the remedy."""

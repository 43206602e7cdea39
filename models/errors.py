"""Errors of models: bundles, saved indexes, codes, splits and training.

EverlongError
    BundleError, SnapshotError   files that must not be served
    GenerationError              codes of a codebook that the index does not hold
    UnknownModalityError
    NothingToLearnError          a split without training events
        NoHistoryError           no item of the catalogue in a basket before the cut
    CheckpointError, RanksDifferError, WarmStartError   a training that cannot start or resume
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from features.errors import EverlongError


class BundleError(EverlongError):
    """A bundle that this program must not serve: what differs, both values, and the remedy."""

    def __init__(self, part: str, found: object, expected: object, remedy: str) -> None:
        super().__init__(f"the bundle's {part} is {found}, expected {expected}", remedy)
        self.part, self.found, self.expected = part, found, expected


class SnapshotError(EverlongError):
    """A saved index that must not be served: what differs, both values, and the remedy."""

    remedy = "remove it, a new one is made from the topic"

    def __init__(self, part: str, found: object, expected: object) -> None:
        super().__init__(f"the saved index's {part} is {found}, expected {expected}")
        self.part, self.found, self.expected = part, found, expected


class GenerationError(EverlongError):
    """Codes of a generation that the index does not hold: hold it first, or encode the vectors again."""

    def __init__(self, what: str, given: str, held: Iterable[str]) -> None:
        self.given, self.held = given, tuple(held)
        super().__init__(f"{what} is of generation {given}, the index holds {', '.join(self.held)}")


class UnknownModalityError(EverlongError):
    """An unknown modality, an empty choice, or one named twice; the message lists the names."""


class NothingToLearnError(EverlongError):
    """The split leaves no event to learn from; the message names the remedy."""


class NoHistoryError(NothingToLearnError):
    """No item of the catalogue is in a basket before the cut."""


class RanksDifferError(EverlongError):
    """The processes of one training do not learn the same: which rank, what differs by name, and the remedy."""

    remedy = "give all processes the same arguments, data and version"

    def __init__(self, rank: int, differ: Mapping[str, tuple[str | None, str | None]]) -> None:
        listed = ", ".join(f"{name} {theirs} and not {first}" for name, (first, theirs) in differ.items())
        super().__init__(f"rank {rank} does not learn what rank 0 learns ({listed})")


class CheckpointError(EverlongError):
    """A checkpoint that this training cannot resume from: the file, what differs, and the remedy."""

    remedy = "resume with the arguments and data that it was begun with, name another --checkpoints directory, or remove this one"

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"the checkpoint {path} {what}")


class WarmStartError(EverlongError):
    """A bundle that this training cannot start from: why, and the remedy."""

"""What surrounds the phases of one training: where it is kept, who takes part, how precise it computes."""

from dataclasses import dataclass, field

from models.training.loop.checkpoints import Checkpoints
from models.training.loop.precision import Precision
from models.training.loop.ranks import Ranks


@dataclass(frozen=True)
class Run:
    """One training of one or more phases. As it is: nothing is kept, this process is alone, the device says how precise."""

    checkpoints: Checkpoints | None = None
    ranks: Ranks = field(default_factory=Ranks)
    precision: Precision | None = None

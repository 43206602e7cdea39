"""Opening a rival by its name; only here, and only then, is the library imported."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from time import monotonic
from typing import cast

from research.baselines.contract import Rival
from research.errors import MissingExtraError

NAMES: tuple[str, ...] = ("sasrec", "gru4rec", "youtubednn", "mind", "comirec", "sine")
LIBRARY = "torch_rechub"


def open_rival(name: str, clock: Callable[[], float] = monotonic) -> Rival:
    """The rival called `name`, untrained; `clock` gives the seconds that its budget is counted in.

    Raises ValueError for a name that is not in NAMES, MissingExtraError without the library.
    """
    if name not in NAMES:
        raise ValueError(f"no rival is called {name!r}; there are {', '.join(NAMES)}")
    if find_spec(LIBRARY) is None:
        raise MissingExtraError(f"{name} needs the library {LIBRARY}", "pip install 'everlong[baselines]'")
    return cast(Rival, import_module("research.baselines.trained").TrainedRival(name, clock))

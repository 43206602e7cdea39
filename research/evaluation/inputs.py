"""What an evaluation is asked and what it reads: the plan, the file, its split."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from features.errors import SourceError
from features.events import Event, Item
from features.history import Deeds, deeds
from features.sources import Reading
from infra.training.from_files import ShopPlan, shop_history
from models.config import Config
from models.evaluation.baselines import SIMPLE
from models.evaluation.split import Split, by_users, temporal
from research.digests import digest

SHOP = "shop"
SHOP_ENDS_MS = 1_760_000_000_000
SPLITS = ("temporal", "users")

Tell = Callable[[int, int], None]
Phase = Callable[[str], AbstractContextManager[Tell]]  # opens a progress bar


class EvaluationPlan(NamedTuple):
    """What is evaluated, and how. `reading`: the file `data` where it is read already. `budget_s`: seconds of each trained baseline; None:
    as long as our own training took. `choose`: the shares of lists are chosen before the cut, by one more training. `work`: where finished
    trainings are kept."""

    data: str
    config: Config
    reading: Reading | None = None
    bundle: Path | None = None
    baselines: Sequence[str] = SIMPLE
    split: str = "temporal"
    seed: int = 0
    seeds: int = 1
    max_users: int | None = None
    test_users: int | None = 2000
    budget_s: float | None = None
    trials: int = 4
    choose: bool = False
    device: str = "cpu"
    work: Path | None = None


class Loaded(NamedTuple):
    """A file that was read: behaviour by user, described items, items known only from events, the name, and the number of refused rows."""

    done: Mapping[str, Deeds]
    described: Sequence[Item]
    inferred: Sequence[Item]
    name: str
    refused: int

    def digest(self) -> str:
        """A digest of all of it: it differs for a corrected file, another table of products or another sample of users."""
        return digest([self.name, *self.done.items(), "described", *self.described, "inferred", *self.inferred])


def load_data(plan: EvaluationPlan) -> Loaded:
    """Read the file, or make the simulated shop, and keep `max_users` of its users.

    Raises:
        SourceError: it is no file of events, or holds none but searches.
    """
    if plan.data == SHOP:
        history = shop_history(ShopPlan(seed=plan.seed, end_ms=SHOP_ENDS_MS))
        return Loaded(_some(deeds(history.events), plan.max_users, plan.seed), history.items, [], history.name, 0)
    reading = plan.reading or Reading(plan.data)
    described: list[Item] = []

    def kept(events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, Item):
                described.append(event)
            else:
                yield event

    done = deeds(kept(reading.events()))
    if not any(mine.events for mine in done.values()):
        first = reading.refusals.first
        why = f"; its first refused row is row {first[0].row}: {first[0].detail}" if first else ""
        searches = "searches only" if done else "no event"
        raise SourceError(f"{reading.path} holds {searches}{why}", "give a file with clicks or orders, as docs/data.md describes")
    described += reading.described()
    users = _some(done, plan.max_users, plan.seed)
    return Loaded(users, described, reading.undescribed(), reading.path.name, reading.refusals.total)


def split_of(plan: EvaluationPlan, done: Mapping[str, Deeds]) -> Split:
    """The split that is asked for."""
    if plan.split == "users":
        return by_users(done, plan.seed)
    return temporal(done, plan.config.training.holdout, plan.config.training.cut_ms)


def _some(done: Mapping[str, Deeds], most: int | None, seed: int) -> Mapping[str, Deeds]:
    if most is None or len(done) <= most:
        return done
    users = sorted(done)
    return {users[at]: done[users[at]] for at in sorted(np.random.default_rng(seed).permutation(len(users))[:most].tolist())}

"""A bundle trained on a file or on the simulated shop, and put where the workers look for it."""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from features.events import Event, Item
from features.sources import Reading
from infra.clock import wall_ms
from infra.shop import Shop
from infra.training.log import TrainingLog
from models.bundle import Bundle, Manifest, save
from models.config import Config
from models.training.loop import Checkpoints, Ranks, Run
from models.training.train import Progress, train

DAY_MS = 86_400_000

Tell = Callable[[int, int], None]  # steps done, steps in all


class ShopPlan(NamedTuple):
    """Which simulated shop, and how long its history is. `end_ms` (wall clock): when it ends; 0: now."""

    users: int = 300
    items: int = 2000
    categories: int = 40
    days: float = 60.0
    seed: int = 0
    end_ms: int = 0

    def open(self) -> Shop:
        """The shop."""
        return Shop(self.seed, self.users, self.items, self.categories)


class History(NamedTuple):
    """What is learnt from: events ascending by time, states of items that are described, what to call it, and items that only
    events tell of."""

    events: Sequence[Event]
    items: Sequence[Item]
    name: str
    told: Sequence[Item] = ()


def shop_history(plan: ShopPlan) -> History:
    """The history of a simulated shop."""
    shop = plan.open()
    end_ms = plan.end_ms or wall_ms()
    start_ms = end_ms - int(plan.days * DAY_MS)
    name = f"simulated shop: {plan.users} users, {plan.items} items, {plan.categories} categories, {plan.days:g} days, seed {plan.seed}"
    return History(shop.history(start_ms, end_ms), shop.catalogue(start_ms), name)


def file_history(reading: Reading) -> History:
    """The history in a file. Items are described by the file itself, or by a table of products."""
    events = list(reading.events())
    described = [event for event in events if isinstance(event, Item)]
    return History(events, described + reading.described(), reading.path.name, reading.undescribed())


def train_bundle(
    history: History,
    out: Path,
    *,
    config: Config,
    seed: int,
    device: str,
    tell: Tell,
    checkpoints: Path | None = None,
    every_s: float = 60.0,
    log: Path | None = None,
    ranks: Ranks | None = None,
    parent: Bundle | None = None,
    choose: bool = True,
) -> Manifest:
    """Train, write the bundle to `out` (one that stood there is replaced), give its manifest with the metrics.

    A training that is kept in the directory `checkpoints`, anew after `every_s` seconds, goes on from there where it was broken
    off. `log` gets a row a step. Of several processes (`ranks`) all are given the same; only the one that leads tells, logs,
    writes and has metrics. With a `parent` that bundle is gone on from, on what is newer than what it learnt from. `choose`: the
    shares of lists are chosen by half of the held-out users, the other half is reported.

    Raises:
        CheckpointError: the directory holds another training. RanksDifferError: the processes are not given the same. WarmStartError: the
        parent cannot be gone on from.
    """
    ranks = ranks or Ranks()
    about = {"seed": str(seed), "data": history.name} | ({"parent": parent.generation} if parent else {})
    kept = Checkpoints(checkpoints, about, every_s) if checkpoints else None
    created = datetime.now(UTC).isoformat(timespec="seconds")
    with TrainingLog(log) if log and ranks.leads else nullcontext() as written:

        def progress(now: Progress) -> None:
            if now.examples and ranks.leads:  # a step of learning
                tell(now.step, now.steps)
            if written is not None:
                written.tell(now)

        bundle = train(
            history.events,
            history.items,
            config,
            seed,
            progress,
            data=history.name,
            created=created,
            device=device,
            run=Run(kept, ranks),
            parent=parent,
            choose=choose,
            told=history.told,
        )
    if ranks.leads:
        for note in bundle.manifest.notes:
            logging.getLogger(__name__).warning(note)
        save(bundle, out)
    return bundle.manifest


def config_of(epochs: int | None = None, dim: int | None = None) -> Config:
    """The default configuration, with another number of passes or dimension d where one is given."""
    given = {"epochs": epochs, "dim": dim}
    return Config().replace(**{name: value for name, value in given.items() if value is not None})

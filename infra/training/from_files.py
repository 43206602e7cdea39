"""Trains a bundle on a file or on the simulated shop, and writes it to where the workers find it."""

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
from models.training.checkpoints import Checkpoints
from models.training.devices import Ranks
from models.training.loop import Run
from models.training.phase import TrainingProgress
from models.training.train import train

DAY_MS = 86_400_000

Tell = Callable[[int, int], None]  # steps done, total steps


class ShopPlan(NamedTuple):
    """A simulated shop and the length of its history. `end_ms` (wall clock): its end; 0: now."""

    users: int = 300
    items: int = 2000
    categories: int = 40
    days: float = 60.0
    seed: int = 0
    end_ms: int = 0

    def open(self) -> Shop:
        """The shop."""
        return Shop(self.seed, self.users, self.items, self.categories)


class FileHistory(NamedTuple):
    """Training data: events ascending by time, states of described items, a name, and items known only from events."""

    events: Sequence[Event]
    items: Sequence[Item]
    name: str
    inferred: Sequence[Item] = ()


def shop_history(plan: ShopPlan) -> FileHistory:
    """The history of a simulated shop."""
    shop = plan.open()
    end_ms = plan.end_ms or wall_ms()
    start_ms = end_ms - int(plan.days * DAY_MS)
    name = f"simulated shop: {plan.users} users, {plan.items} items, {plan.categories} categories, {plan.days:g} days, seed {plan.seed}"
    return FileHistory(shop.history(start_ms, end_ms), shop.catalogue(start_ms), name)


def file_history(reading: Reading) -> FileHistory:
    """The history in a file. Items are described by the file itself, or by a table of products."""
    events = list(reading.events())
    described = [event for event in events if isinstance(event, Item)]
    return FileHistory(events, described + reading.described(), reading.path.name, reading.undescribed())


def train_bundle(  # noqa: PLR0913
    history: FileHistory,
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
    """Train, write the bundle to `out` (an existing one is replaced), and return its manifest with the metrics.

    With a directory `checkpoints`, the state is saved every `every_s` seconds, and an interrupted training resumes from it. `log` gets
    one row per step. Several processes (`ranks`) all get the same arguments; only the leader reports progress, logs, writes and has
    metrics. With a `parent`, training continues from that bundle's weights, on events newer than those it was trained on. `choose`:
    choose the shares of lists on half of the held-out users, and report metrics on the other half.

    Raises:
        CheckpointError: the directory contains another training.
        RanksDifferError: the processes have different arguments.
        WarmStartError: training cannot continue from the parent.
    """
    ranks = ranks or Ranks()
    about = {"seed": str(seed), "data": history.name} | ({"parent": parent.generation} if parent else {})
    kept = Checkpoints(checkpoints, about, every_s) if checkpoints else None
    created = datetime.now(UTC).isoformat(timespec="seconds")
    with TrainingLog(log) if log and ranks.leads else nullcontext() as written:

        def progress(now: TrainingProgress) -> None:
            if now.examples and ranks.leads:  # a training step
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
            inferred=history.inferred,
        )
    if ranks.leads:
        for note in bundle.manifest.notes:
            logging.getLogger(__name__).warning(note)
        save(bundle, out)
    return bundle.manifest


def config_of(epochs: int | None = None, dim: int | None = None) -> Config:
    """The default configuration, with the given number of passes and dimension d, if any."""
    given = {"epochs": epochs, "dim": dim}
    return Config().replace(**{name: value for name, value in given.items() if value is not None})

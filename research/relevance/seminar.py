"""SEMINAR trained by itself: pretraining from replayed histories, then fine-tuning on the next pair alone.

Only baskets before the cut are targets, and only the rows before each are read. The same events, seed, machine and thread
count give the same weights.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import torch

from features.events import Item
from features.history import Deeds, moments
from models.config import Config
from models.encoding.contents import Contents, Widths, contents
from models.encoding.histories import build
from models.encoding.vocabulary import Vocabulary
from models.errors import NoHistoryError
from models.network.psu import Psu
from models.network.search import Seminar
from models.training.loop import Run
from models.training.phase import TrainingProgress
from models.training.pretraining import learn

TUNING = 2  # passes of fine-tuning
Tell = Callable[[str, int, int, float], None]  # phase, steps done, total steps, mean loss of the most recent steps


class Trained(NamedTuple):
    """A trained SEMINAR, the catalogue it reads, and where each item stands in it."""

    model: Seminar
    vocabulary: Vocabulary
    contents: Contents
    positions: Mapping[str, int]


def train_seminar(  # noqa: PLR0913
    done: Mapping[str, Deeds],
    catalogue: Sequence[Item],
    config: Config,
    cut_ms: int,
    seed: int,
    tuning: int = TUNING,
    progress: Tell = lambda *_: None,
    device: str = "cpu",
    run: Run | None = None,
    build_psu: type[Psu] = Psu,
) -> Trained:
    """Train on the baskets before `cut_ms`: all objectives, then `tuning` passes over the next pair alone.

    Items of the catalogue that nobody touched before the cut have no id modality. `build_psu`: another search unit, for ablations.

    Raises:
        NoHistoryError: there is no basket before the cut.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    positions = {item.item_id: at for at, item in enumerate(catalogue)}
    before = moments(dict(done), until_ts=cut_ms, per_user=config.training.per_user)
    histories, _ = build(before, positions, config)
    if not len(histories.target):
        raise NoHistoryError("no basket before the cut holds an item of the catalogue", "train on a longer history")
    touched = np.unique(np.concatenate([histories.target, histories.item[histories.item >= 0]]))
    vocabulary = Vocabulary.of((), (catalogue[at].item_id for at in touched.tolist()))
    widths = Widths.of(catalogue)
    table = contents(catalogue, vocabulary, config.network, widths)
    model = Seminar(build_psu(config.network, vocabulary.item_rows, widths), config.training.pretraining).to(device)

    def tell(now: TrainingProgress) -> None:
        progress(now.phase, now.step, now.steps, now.loss)

    pretraining = config.training.pretraining
    if pretraining.epochs:
        learn(model, histories, table, pretraining, "pretraining", pretraining.epochs, rng, tell, run)
    next_pair_only = msgspec.structs.replace(pretraining, alignment=0.0, relevance=0.0, next_weight=1.0)
    learn(model, histories, table, next_pair_only, "fine-tuning", tuning, rng, tell, run)
    return Trained(model.eval(), vocabulary, table, positions)

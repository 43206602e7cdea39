"""Training: events replayed through the row code, the losses of ULIM, a bundle with its metrics.

What the paper leaves open and is chosen here: alpha 1, beta 0.5, a pool-wide loss for the short tower of
weight 1 (it searches the whole pool, so it must learn to tell categories apart), logQ correction of the shared negatives,
rare categories filled up with negatives sampled from the catalogue. Category losses see no candidate of another category.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import msgspec
import numpy as np
import torch
from torch import Tensor

from features.events import Event, Item
from features.history import Deeds, deeds, moments
from models.bundle import Bundle
from models.codes.modalities import choose
from models.config import Config
from models.encoding.catalogue import catalogue_of
from models.encoding.contents import strangers
from models.encoding.histories import build as histories_of
from models.encoding.inputs import Positions
from models.errors import NothingToLearnError
from models.evaluation import temporal
from models.evaluation.evaluate_bundle import judged
from models.evaluation.prediction_points import offered
from models.network.search import Seminar
from models.network.ulim import Builder, Network
from models.training.bundling import bundle_of, with_items
from models.training.dataset import Examples, Prepared, build, prepare
from models.training.loop import Run, fit
from models.training.losses import Pool, joint_loss
from models.training.phase import Phase, TrainingProgress
from models.training.pretraining import learn as teach
from models.training.warm_start import begin_new, new_since, take_over


def train(  # noqa: PLR0913
    events: Iterable[Event],
    items: Iterable[Item],
    config: Config,
    seed: int,
    progress: Callable[[TrainingProgress], None] = lambda _: None,
    *,
    data: str = "",
    created: str = "",
    device: str = "cpu",
    run: Run | None = None,
    parent: Bundle | None = None,
    choose: bool = True,
    inferred: Sequence[Item] = (),
) -> Bundle:
    """Train on the events before the cut, evaluate on those after it (`bundle.manifest.metrics`), and return the bundle.

    `items` are all states of the described items; `inferred` are states of items that are known only from events. The catalogue as of
    the cut is trained on and evaluated; the bundle contains the newest state of every item that is not deleted, including those that
    appeared after the cut, encoded as serving encodes new items.
    Of several processes (`run`) only the leader evaluates; the bundles of the others have no metrics, and the items of the cut.
    `choose`: see models.evaluation.evaluate_bundle, which also counts the held-out events for the bundle's popular items.
    With a `parent`, events that it was trained on are history only, and the last share of the newer events is held out.

    Raises:
        NothingToLearnError: there is no event before the cut, or no item in the end. WarmStartError: as `learn` says.
    """
    progress(TrainingProgress("reading history", 0, 1, 0.0))
    done = deeds(events)
    split = temporal(done, config.training.holdout, config.training.cut_ms, new_since(parent, done) if parent else 0)
    described = list(items)
    if not (newest := catalogue_of([*inferred, *described], done)):
        raise NothingToLearnError("every item is deleted by the end of the log", "give the states of items that can be recommended")
    there = offered(described, inferred, split, split.starts)
    bundle = learn(
        split.known,
        there.catalogue,
        config,
        seed,
        progress,
        cut_ms=split.cut_ms,
        data=data,
        created=created,
        device=device,
        run=run,
        parent=parent,
    )
    if run is not None and not run.ranks.leads:
        return bundle
    progress(TrainingProgress("evaluating", 1, 1, 0.0))
    return with_items(judged(bundle, there, split, seed, device, choose), newest)


def learn(  # noqa: PLR0913
    known: Mapping[str, Deeds],
    items: Iterable[Item],
    config: Config,
    seed: int,
    progress: Callable[[TrainingProgress], None] = lambda _: None,
    *,
    cut_ms: int,
    data: str = "",
    created: str = "",
    device: str = "cpu",
    run: Run | None = None,
    parent: Bundle | None = None,
    build_network: Builder = Network,
) -> Bundle:
    """Train a bundle on what users did before `cut_ms`, and on nothing else; its manifest has no metrics.

    `items` is the catalogue: an item that is not in it, or whose newest state is a deletion, is unknown in histories and never a
    target. `created` and `data` are copied into the manifest. The same input and seed give the same bundle on one machine and thread
    count, in any order of items. With a `parent`, training starts from its weights, on events newer than its own
    (models.training.warm_start); the parent is not changed. `build_network` is for ablations; serving loads only the default network.

    Raises:
        NothingToLearnError: there is no event before the cut.
        UnknownModalityError: a name in `config.network.coded` is unknown.
        WarmStartError: nothing is new to the parent, or its weights are not those of this configuration.
    """
    choose(config.network.coded)
    torch.manual_seed(seed)
    prepared = prepare(known, items, config.network, cut_ms, parent)
    vocabulary = prepared.vocabulary
    positions = Positions({item.item_id: at for at, item in enumerate(prepared.catalogue)}, vocabulary)
    new_ms = new_since(parent, known) if parent else 0
    examples = build(prepared.done, positions, config, prepared.cut_ms, new_ms)
    if examples is None:
        raise NothingToLearnError("there is no event to learn from", "give a longer history or a later cut")
    network = build_network(config.network, vocabulary.category_rows, vocabulary.item_rows, prepared.widths).to(device)
    if parent is not None:
        take_over(network, parent.network)
        begin_new(network.psu, prepared.contents, parent.vocabulary.item_rows)
    elif config.training.pretraining.epochs:
        _pretrain(network, prepared, config, seed, progress, run)
    rates = config if parent is None else config.replace(learning_rate=config.training.warm_start_rate)
    steps = _fit(network, examples, prepared, rates, seed, progress, run)
    return bundle_of(network, prepared, config, seed, data, created, steps)


def _pretrain(
    network: Network, prepared: Prepared, config: Config, seed: int, progress: Callable[[TrainingProgress], None], run: Run | None
) -> None:
    """Train the search unit with SEMINAR's joint objectives over lifelong histories of pairs. Only its weights are kept."""
    pretraining, places = config.training.pretraining, {item.item_id: at for at, item in enumerate(prepared.catalogue)}
    before = moments(dict(prepared.done), until_ts=prepared.cut_ms, per_user=config.training.per_user)
    histories, _ = histories_of(before, places, config)
    model, rng = Seminar(network.psu, pretraining).to(network.device), np.random.default_rng(seed)
    teach(model, histories, prepared.contents, pretraining, "pretraining", pretraining.epochs, rng, progress, run)


def _fit(
    network: Network,
    examples: Examples,
    prepared: Prepared,
    config: Config,
    seed: int,
    progress: Callable[[TrainingProgress], None],
    run: Run | None,
) -> int:
    """Train, and return the number of steps."""
    rng = np.random.default_rng(seed)
    table = prepared.contents.join(strangers(prepared.vocabulary, config.network, prepared.widths))
    pool, training = Pool(prepared.category, examples.item), config.training
    if prepared.parent is None:
        counts = np.bincount(examples.category, minlength=len(network.popularity)) + 1.0
        with torch.no_grad():
            network.popularity.copy_(torch.from_numpy(np.log(counts / counts.sum())))

    def loss(batch: np.ndarray, rng: np.random.Generator) -> Tensor:
        drawn = pool.draw(examples.item[batch], training.category_negatives, training.pool_negatives, rng)
        return joint_loss(network, examples, batch, drawn, table, config, rng)

    phase = Phase(
        "training",
        partial(examples.batches, training),
        loss,
        -(-len(examples.item) // training.batch),
        training.epochs,
        training.learning_rate,
        settings=msgspec.json.encode(config).decode(),
        data=(*examples.arrays, *table),
    )
    fit(network, phase, rng, progress, run)
    return phase.steps

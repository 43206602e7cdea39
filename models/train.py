"""Training: events replayed through the row code, the losses of papers.md 1.1 and 1.2, a bundle with its metrics.

What the paper leaves open (papers.md 1.5) and is chosen here: alpha 1, beta 0.5, a pool-wide loss for the short tower of
weight 1 (it searches the whole pool, so it must learn to tell categories apart), logQ correction of the shared negatives,
rare categories filled up with negatives sampled from the catalogue. Category losses see no candidate of another category.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor

from features.events import Event, Item
from features.history import Deeds, deeds, moments
from features.table import schema_hash
from models.bundle import Bundle, ItemTable, Manifest, fingerprint
from models.codes.codebook import Codebook
from models.codes.modalities import choose, only_fused
from models.config import Config
from models.evaluation import NothingToLearn, Split, compact, evaluate, temporal
from models.evaluation.cascaded import Cascade
from models.evaluation.contenders import popularity
from models.evaluation.questions import own_items
from models.evaluation.report import CASCADE, Asked, Report
from models.evaluation.simple import simple
from models.evaluation.tally import Entry
from models.examples import Examples, build
from models.fitting import Phase, Run, fit
from models.fitting import Progress as Progress
from models.inputs import QUERY, Positions, Tokens, ends_with
from models.recommender import CHUNK, Recommender
from models.rescoring import examples as rescoring
from models.rescoring.learning import Learning
from models.seminar.contents import Contents, Widths, contents, strangers, trim
from models.seminar.histories import build as histories_of
from models.seminar.model import Seminar
from models.seminar.pretrain import hide
from models.seminar.pretrain import learn as teach
from models.tuning import begin_new, new_since, take_over
from models.ulim.loss import Drawn, Pool, allow, sampled_softmax
from models.ulim.network import Network
from models.vocabulary import Vocabulary


class Prepared(NamedTuple):
    """What is read once from events and catalogue: who did what, the cut (ms), items and their arrays."""

    done: Mapping[str, Deeds]
    cut_ms: int
    catalogue: list[Item]
    vocabulary: Vocabulary
    widths: Widths
    contents: Contents  # of the V items
    category: np.ndarray  # (V,) rows of the vocabulary
    parent: Bundle | None  # that is gone on from


def train(
    events: Iterable[Event],
    items: Iterable[Item],
    config: Config,
    seed: int,
    progress: Callable[[Progress], None] = lambda _: None,
    *,
    data: str = "",
    created: str = "",
    device: str = "cpu",
    run: Run | None = None,
    parent: Bundle | None = None,
) -> Bundle:
    """Learn from the events before the cut, evaluate on those after it (`bundle.manifest.metrics`), give the bundle.

    Of several processes (`run`) only the one that leads evaluates; the others' bundles have no metrics.
    Popular items of the bundle, which serve where the model cannot, are those of all events. Items that came after the cut are
    in the bundle, but not among what the evaluation can find: that they are there may tell what was wanted.
    With a `parent`, what that learnt from is history alone, and the last share of what is newer is held out.

    Raises:
        NothingToLearn: there is no event before the cut. CannotTune: as `learn` says.
    """
    progress(Progress("reading history", 0, 1, 0.0))
    done = deeds(events)
    split = temporal(done, config.holdout, config.cut_ms, new_since(parent, done) if parent else 0)
    catalogue = catalogue_of(items, split.known, split.cut_ms)
    to = {"data": data, "created": created, "device": device}
    bundle = learn(split.known, catalogue, config, seed, progress, cut_ms=split.cut_ms, run=run, parent=parent, **to)
    if run is not None and not run.ranks.leads:
        return bundle
    progress(Progress("evaluating", 1, 1, 0.0))
    report = _evaluated(bundle, catalogue, split, Asked(config.test_per_user, seed=seed), device)
    newest = max(event.ts for deed in split.done.values() for event in deed.events)
    manifest = msgspec.structs.replace(bundle.manifest, metrics=compact(report))
    return replace(bundle, manifest=manifest, popular=popularity(split.done, newest + 1, config.popular))


def learn(
    known: Mapping[str, Deeds],
    items: Iterable[Item],
    config: Config,
    seed: int,
    progress: Callable[[Progress], None] = lambda _: None,
    *,
    cut_ms: int,
    data: str = "",
    created: str = "",
    device: str = "cpu",
    run: Run | None = None,
    parent: Bundle | None = None,
) -> Bundle:
    """A bundle learnt from what users did before `cut_ms`, and from nothing else; its manifest has no metrics.

    `items` is the catalogue; items that only known events tell of are added. `created` and `data` go into the manifest as
    they are. The same input and seed give the same bundle on one machine and thread count, whatever the order of items.
    With a `parent` its weights are gone on from, on what came after it (models.tuning); it is left as it is.

    Raises:
        NothingToLearn: there is no event before the cut. UnknownModality: `config.coded` names none. CannotTune: nothing is new
        to the parent, or its weights are not those of this configuration.
    """
    choose(config.coded)
    torch.manual_seed(seed)
    prepared = _prepare(known, items, config, cut_ms, parent)
    vocabulary = prepared.vocabulary
    positions = Positions({item.item_id: at for at, item in enumerate(prepared.catalogue)}, vocabulary)
    new_ms = new_since(parent, known) if parent else 0
    examples = build(prepared.done, positions, config, prepared.cut_ms, new_ms)
    if examples is None:
        raise NothingToLearn("there is no event to learn from: give a longer history or a later cut")
    network = Network(config, vocabulary.category_rows, vocabulary.item_rows, prepared.widths).to(device)
    if parent is not None:
        take_over(network, parent.network)
        begin_new(network.psu, prepared.contents, parent.vocabulary.item_rows)
    elif config.pretraining:
        _pretrain(network, prepared, config, seed, progress, run)
    rates = config if parent is None else msgspec.structs.replace(config, learning_rate=config.tuning_rate)
    steps = _fit(network, examples, prepared, rates, seed, progress, run)
    if network.rescorer is not None:
        table = prepared.contents.join(strangers(vocabulary, config.search_unit, prepared.widths))
        learning = Learning(network.rescorer, _vectors(network, table), prepared.category, rates)
        since = rescoring.first_seen(prepared.catalogue, prepared.done)
        learning.fit(rescoring.build(prepared.done, positions, since, config, prepared.cut_ms, new_ms), seed, progress, run)
    return _bundle(network, prepared, config, seed, data, created, steps)


def _pretrain(
    network: Network, prepared: Prepared, config: Config, seed: int, progress: Callable[[Progress], None], run: Run | None
) -> None:
    """SEMINAR's joint objectives over lifelong histories of pairs (papers.md 2.1); of what they teach the search unit goes on."""
    unit, places = config.search_unit, {item.item_id: at for at, item in enumerate(prepared.catalogue)}
    before = moments(dict(prepared.done), until_ts=prepared.cut_ms, per_user=unit.per_user)
    histories, _ = histories_of(before, places, unit)
    model, rng = Seminar(network.psu).to(network.device), np.random.default_rng(seed)
    teach(model, histories, prepared.contents, unit, "pretraining", unit.epochs, rng, progress, run)


def _evaluated(bundle: Bundle, catalogue: list[Item], split: Split, asked: Asked, device: str) -> Report:
    """The report over items that were there before the cut, or that known events touch."""
    touched = {event.item for deed in split.known.values() for event in deed.events}
    there = [item for item in catalogue if item.ts < split.cut_ms or item.item_id in touched]
    ids = {item.item_id for item in there}
    own = own_items(split, split.starts, [item for item in catalogue if item.item_id not in ids])
    cascade = Cascade(Recommender(bundle, device), bundle.manifest.config.top_k, there, own)
    return evaluate(split, [Entry(CASCADE, asked.seed, cascade), *simple(split)], ids, asked)


def losses(
    network: Network,
    examples: Examples,
    batch: np.ndarray,
    drawn: Drawn,
    table: Contents,
    config: Config,
    rng: np.random.Generator,
) -> Tensor:
    """The joint loss of a batch of examples, a scalar. `table` holds the contents of all V + N positions."""
    short, long = examples.short.take(batch), examples.long.take(batch)
    used, places = np.unique(np.concatenate([short.item.ravel(), long.item.ravel(), drawn.position]), return_inverse=True)
    shown = hide(table.take(used), config.seminar.item_dropout, rng)
    vectors = network.items(shown)  # (U, d)
    read = network.table(vectors, shown.item)
    at_short, at_long, at_drawn = np.split(places, np.cumsum([short.item.size, long.item.size]))
    told = np.concatenate([[0], short.text.ravel(), long.text.ravel()])  # 0, no text, is 0 among those of the batch too
    texts, inverse = np.unique(told, return_inverse=True)
    numbers = inverse[1:]
    said = network.texts(trim(examples.words[texts]))  # (texts, d)
    short = _local(short, at_short, numbers[: short.text.size])
    long = _local(long, at_long, numbers[short.text.size :])
    state = network.users(read, short, examples.touched.take(batch), said)
    category = torch.from_numpy(examples.category[batch]).to(network.device)  # (B,)
    interest = network.long(read, long, said, state.pooled, state.profile, category)  # (B, d)
    chance = network.next_category(state).mixed.gather(1, category[:, None])  # (B, 1)
    to = network.device
    candidates = vectors[torch.from_numpy(at_drawn).to(to)]  # (C, d)
    position, own = (torch.from_numpy(array).to(to) for array in (drawn.position, drawn.category))  # (C,), (C,)
    q_category, q_pool = (torch.from_numpy(q).float().to(to) for q in (drawn.log_q_category, drawn.log_q_pool))
    target = position[: len(batch)]  # (B,)
    same = allow(target, position, own[: len(batch), None] == own[None, :])  # (B, C)
    pool = allow(target, position, torch.from_numpy(drawn.pooled).to(to))  # (B, C)
    live = torch.from_numpy(ends_with(QUERY, short)).to(to)  # (B,): the text of the query that the target may follow, or 0
    live_query, is_live = said[live], (live > 0).float()  # (B, d), (B,)
    asked = (same, q_category) if config.long_negatives == "category" else (pool, q_pool)
    return (
        config.alpha * sampled_softmax(interest, candidates, *asked, config.temperature, config.log_q)
        + config.beta * sampled_softmax(state.vectors, candidates, same, q_category, config.temperature, config.log_q)
        + config.pool * sampled_softmax(state.vectors, candidates, pool, q_pool, config.temperature, config.log_q)
        + config.query * sampled_softmax(live_query, candidates, pool, q_pool, config.temperature, config.log_q, is_live)
        - config.gamma * chance.clamp(min=1e-9).log().mean()
    )


def _fit(
    network: Network,
    examples: Examples,
    prepared: Prepared,
    config: Config,
    seed: int,
    progress: Callable[[Progress], None],
    run: Run | None,
) -> int:
    """Learn; gives the number of steps."""
    rng = np.random.default_rng(seed)
    table = prepared.contents.join(strangers(prepared.vocabulary, config.search_unit, prepared.widths))
    pool = Pool(prepared.category, examples.item)
    if prepared.parent is None:
        counts = np.bincount(examples.category, minlength=len(network.popularity)) + 1.0
        with torch.no_grad():
            network.popularity.copy_(torch.from_numpy(np.log(counts / counts.sum())))

    def loss(batch: np.ndarray, rng: np.random.Generator) -> Tensor:
        drawn = pool.draw(examples.item[batch], config.category_negatives, config.pool_negatives, rng)
        return losses(network, examples, batch, drawn, table, config, rng)

    phase = Phase(
        "training",
        partial(examples.batches, config),
        loss,
        -(-len(examples.item) // config.batch),
        config.epochs,
        config.learning_rate,
        settings=msgspec.json.encode(config).decode(),
        learnt_from=(*examples.arrays, *table),
    )
    fit(network, phase, rng, progress, run)
    return phase.steps


def _local(tokens: Tokens, item: np.ndarray, text: np.ndarray) -> Tokens:
    return tokens._replace(item=item.reshape(tokens.item.shape), text=text.reshape(tokens.text.shape))


def _prepare(done: Mapping[str, Deeds], items: Iterable[Item], config: Config, cut_ms: int, parent: Bundle | None) -> Prepared:
    catalogue = catalogue_of(items, done, cut_ms)
    seen = {event.item for deed in done.values() for event in deed.events if event.ts < cut_ms}
    vocabulary = (parent.vocabulary if parent else Vocabulary.of((), ())).grown((item.category_id for item in catalogue), seen)
    widths = parent.manifest.widths if parent else Widths.of(catalogue)
    category = np.array([vocabulary.category(item.category_id) for item in catalogue], np.int64)
    shown = contents(catalogue, vocabulary, config.search_unit, widths)
    return Prepared(done, cut_ms, catalogue, vocabulary, widths, shown, category, parent)


def catalogue_of(items: Iterable[Item], done: Mapping[str, Deeds], cut_ms: int) -> list[Item]:
    """The newest state of each item that is not deleted, and of each that only events before the cut tell of; by id."""
    newest: dict[str, Item] = {}
    for item in items:
        if item.item_id not in newest or item.ts >= newest[item.item_id].ts:
            newest[item.item_id] = item
    told: dict[str, Item] = {}
    for deed in done.values():
        for event in deed.events:
            if event.ts < cut_ms and event.item not in newest and (event.item not in told or event.ts > told[event.item].ts):
                told[event.item] = Item(item_id=event.item, category_id=event.category, title="", ts=event.ts)
    return [item for _, item in sorted((newest | told).items()) if not item.deleted]


@torch.no_grad()
def _vectors(network: Network, items: Contents) -> Tensor:
    """The vectors (n, d) of items, as bundles hold them."""
    return torch.cat([network.items(chunk) for chunk in _chunks(items)])


def _chunks(items: Contents) -> Iterator[Contents]:
    count = len(items.item)
    return (items.take(np.arange(start, min(start + CHUNK, count))) for start in range(0, count, CHUNK))


@torch.inference_mode()
def _bundle(network: Network, prepared: Prepared, config: Config, seed: int, data: str, created: str, steps: int) -> Bundle:
    parent, catalogue = prepared.parent, prepared.catalogue
    vectors = _vectors(network, prepared.contents).cpu().numpy()  # (V, d)
    wide = () if only_fused(config.coded) else [network.coded(chunk, config.coded) for chunk in _chunks(prepared.contents)]
    parts = np.concatenate(wide) if wide else None  # (V, D)
    coded = vectors if parts is None else parts
    codebook = Codebook.train(coded, config.subspaces * len(config.coded), seed, start=parent.codebook if parent else None)
    manifest = Manifest(
        schema=schema_hash(),
        generation=fingerprint(network),
        codebook=codebook.generation,
        dim=config.dim,
        subspaces=codebook.subspaces,
        categories=len(prepared.vocabulary.categories),
        items=len(catalogue),
        widths=prepared.widths,
        config=config,
        data=data,
        seed=seed,
        created=created,
        cut_ms=prepared.cut_ms,
        parent=parent.generation if parent else None,
        earlier=tuple(sorted({*parent.manifest.earlier, parent.manifest.data})) if parent else (),
        steps=steps + (parent.manifest.steps if parent else 0),
    )
    ids, categories = [item.item_id for item in catalogue], [item.category_id for item in catalogue]
    items = ItemTable(ids, categories, [item.title for item in catalogue], vectors, codebook.encode(coded), parts)
    return Bundle(manifest, network, prepared.vocabulary, items, codebook, popularity(prepared.done, prepared.cut_ms, config.popular))

"""The rows of `everlong ablate`: each changes one setting or plugs in one mechanism, and is compared with another row."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from features.events import Item
from features.history import Deeds
from models.bundle import Bundle
from models.config import Config, PretrainingConfig, RetrievalConfig, Shares
from models.evaluation.baselines import Contender
from models.evaluation.cascade import Cascade
from models.network.ulim import Builder, Network
from models.serving.recommender import Recommender
from research import mechanisms
from research.errors import UnknownRowError
from research.mechanisms import inputs
from research.mechanisms.category_source import GeneratorOnly, PointerOnly
from research.reranking.config import RerankConfig
from research.reranking.study import Reranked, train_reranker

DEFAULT = "default"


class TrainedRow(NamedTuple):
    """What a row is served from: a trained bundle, the history and catalogue it was trained on, and the seed."""

    bundle: Bundle
    known: Mapping[str, Deeds]
    catalogue: Sequence[Item]
    seed: int


def as_served(cascade: Cascade, _: TrainedRow) -> Contender:
    """The cascade as it is."""
    return cascade


class Row(NamedTuple):
    """What a row changes in the default, and the row it is compared with.

    Attributes:
        name: of the row.
        changes: fields of the configuration, by name.
        beside: the row it is compared with.
        build_network: trains another network.
        build_recommender: serves the trained bundle differently.
        finish: reorders the candidates of the cascade.
    """

    name: str
    changes: Mapping[str, Any]
    beside: str = DEFAULT
    build_network: Builder = Network
    build_recommender: Callable[[Bundle, str], Recommender] = Recommender
    finish: Callable[[Cascade, TrainedRow], Contender] = as_served

    def of(self, usual: Config) -> Config:
        """The configuration of this row."""
        return usual.replace(**self.changes)

    def training(self, usual: Config) -> "TrainingKey":
        """What the weights of this row follow from, besides data and seed."""
        return TrainingKey(trained_as(self.of(usual)), "" if self.build_network is Network else self.name)

    @property
    def serving(self) -> str:
        """The name of the row if it changes serving by more than its configuration, else nothing."""
        return "" if (self.build_recommender, self.finish) == (Recommender, as_served) else self.name


class TrainingKey(NamedTuple):
    """The configuration without its retrieval, and the name of the row whose mechanism is plugged in. Equal: one training."""

    config: Config
    mechanism: str


def mechanism(name: str, build_network: Builder, beside: str = DEFAULT) -> Row:
    """A row that trains another network."""
    return Row(name, {}, beside, build_network)


def reranking(name: str, attention: bool) -> Row:
    """A row that trains a reranker on the default bundle and puts the candidates in its order."""
    return Row(name, {}, finish=partial(_reranked, attention=attention))


def _reranked(cascade: Cascade, trained: TrainedRow, attention: bool) -> Contender:
    config = RerankConfig.of(trained.bundle.manifest.config, attention)
    return Reranked(cascade, train_reranker(trained.bundle, trained.known, trained.catalogue, config, trained.seed))


ROWS = (
    Row(DEFAULT, {}),
    Row("pointer only", {}, build_recommender=PointerOnly),
    Row("generator only", {}, build_recommender=GeneratorOnly),
    Row("K 1", {"top_k": 1}),
    Row("K 2", {"top_k": 2}),
    Row("K 4", {"top_k": 4}),
    Row("K 16", {"top_k": 16}),
    Row("target corrected by log Q too", {"log_q": "all"}),
    Row("no log Q", {"log_q": "none"}),
    mechanism("half the lifelong history", inputs.NEWEST_HALF),
    mechanism("self-attention in the long tower", mechanisms.SELF_ATTENTION),
    Row("pool-wide negatives in the long tower", {"long_negatives": "pool"}),
    mechanism("no time gap", inputs.NO_GAP),
    mechanism("no kind of behaviour", inputs.ONE_KIND),
    mechanism("no query text", inputs.NO_PAIRED_TEXT),
    Row("L 8", {"long": 8}),
    mechanism("L 8 with 4 folds", inputs.FOLDS, "L 8"),
    mechanism("attention table of 8 (DARE)", mechanisms.attention_table(8)),
    mechanism("attention table of 16 (DARE)", mechanisms.attention_table(16)),
    mechanism("target-free queries (MIRRN)", mechanisms.TARGET_FREE),
    mechanism("memory of 8 slots (DMAN)", mechanisms.memory(8)),
    mechanism("recurrent short encoder", mechanisms.RECURRENT),
    mechanism("short users packed into rows", mechanisms.PACKED),
)
SEMINAR = (
    Row("search unit without pretraining", {"pretraining": PretrainingConfig(epochs=0)}),
    Row("without alignment", {"pretraining": PretrainingConfig(alignment=0.0)}),
    mechanism("without queries", inputs.without_queries),
    Row("without the loss of live queries", {"query_weight": 0.0}),
    Row("live queries count twice", {"query_weight": 1.0}),
)
RERANKING = (
    reranking("reranked by counts of repeats", attention=False),
    reranking("reranked by counts and target attention", attention=True),
)
SENSITIVITY = (
    Row("d 16", {"dim": 16}),
    Row("d 64", {"dim": 64}),
    Row("alpha 0.5", {"alpha": 0.5}),
    Row("alpha 2", {"alpha": 2.0}),
    Row("beta 0", {"beta": 0.0}),
    Row("beta 1", {"beta": 1.0}),
    Row("short tower without pool-wide loss", {"pool_weight": 0.0}),
    Row("gamma 0.3", {"gamma": 0.3}),
    Row("temperature 0.05", {"temperature": 0.05}),
    Row("temperature 0.1", {"temperature": 0.1}),
    Row("4 negatives a category", {"category_negatives": 4}),
    Row("64 negatives a category", {"category_negatives": 64}),
    Row("128 negatives of the pool", {"pool_negatives": 128}),
    Row("runs of 1", {"category_run": 1}),
    Row("runs of 32", {"category_run": 32}),
    Row("no item dropout", {"item_dropout": 0.0}),
    Row("item dropout 0.3", {"item_dropout": 0.3}),
    Row("1 head", {"heads": 1}),
    Row("4 heads", {"heads": 4}),
    Row("S 20", {"short": 20}),
    Row("short list 0.05 of the searches", {"shares": Shares(short=0.05)}),
    Row("short list 0.5 of the searches", {"shares": Shares(short=0.5)}),
    Row("categories share by probability alone", {"shares": Shares(even=0.0)}),
    Row("categories share evenly", {"shares": Shares(even=1.0)}),
    Row("no list of own items", {"shares": Shares(repeat=0.0)}),
    Row("own items 0.4 of the set", {"shares": Shares(repeat=0.4)}),
    Row("no list of live searches", {"shares": Shares(query=0.0)}),
    Row("no demand", {"demand": 0.0}),
    Row("demand 1", {"demand": 1.0}),
    Row("demand 2", {"demand": 2.0}),
)
GROUPS = {
    "mechanisms": ROWS,
    "seminar": (ROWS[0], *SEMINAR),
    "reranking": (ROWS[0], *RERANKING),
    "sensitivity": (ROWS[0], *SENSITIVITY),
    "all": (*ROWS, *SEMINAR, *RERANKING, *SENSITIVITY),
}


def chosen(names: str) -> list[Row]:
    """The rows of a list of names and groups with commas between, with those that they stand beside, the default first.

    Rows that share a training come together.

    Raises:
        UnknownRowError: a name is neither.
    """
    every = {row.name: row for row in GROUPS["all"]}
    wanted: list[str] = [DEFAULT]
    for name in (part.strip() for part in names.split(",")):
        if name not in every and name not in GROUPS:
            raise UnknownRowError(f"{name!r} is no row", f"give {', '.join(GROUPS)}, or some of {'; '.join(every)}")
        for row in GROUPS[name] if name in GROUPS else [every[name]]:
            wanted += [row.beside, row.name]
    return [every[name] for name in dict.fromkeys(wanted)]


def trained_as(config: Config) -> Config:
    """The configuration with the default retrieval: rows for which it is equal share a training."""
    return msgspec.structs.replace(config, retrieval=RetrievalConfig())

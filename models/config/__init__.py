"""What is chosen before training. It travels in the manifest of a bundle, so that serving builds the same network.

What the papers leave open is a field here; docs/ablations.md has the measured effect of each.
"""

from typing import Annotated, Literal

import msgspec

from models.config.seminar import SeminarConfig
from models.config.shares import Shares

MOST_DEMAND = 10.0
DemandWeight = Annotated[float, msgspec.Meta(ge=0, le=MOST_DEMAND)]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of the network and of its training, and its mechanisms. alpha, beta, gamma weigh the losses of papers.md 1.1 and 1.2."""

    dim: int = 32
    heads: int = 2
    short: int = 50  # S: newest events and queries read
    long: int = 64  # L: newest events of one category read
    touched: int = 100  # P': newest distinct categories read
    subspaces: int = 8  # P of the codebook, of each vector of `coded`
    coded: tuple[str, ...] = ("fused",)  # what codes stand for: the fused vector, or modalities side by side (models.codes.modalities)

    time_gap: bool = True  # events tell how long ago they were (SIM)
    kind: bool = True  # events tell whether they were a click, cart, favourite or order (M-GPT, MBHT)
    paired_text: bool = True  # events tell the query that they followed
    folds: int = 0  # of `long`, so many tokens at most stand for older events, counted: their scores get + ln n (TWIN V2)
    history: float = 1.0  # share of each lifelong sequence that is read, the newest of it
    long_attention: Literal["target", "self"] = "target"  # the short pooling asks the sequence, or the sequence asks itself

    attention_dim: int = 0  # a: the long tower's attention reads a table of its own, so wide; 0: it reads the tokens (DARE)
    target_free: bool = False  # the mean of the last 16 events of a sequence and that of all of them ask it too (MIRRN)
    memory: int = 0  # slots that the lifelong sequence is written into, segment by segment, and p_s reads (DMAN)
    short_encoder: Literal["attention", "recurrent"] = "attention"  # a recurrence moves one state, once an event (SIGMA, STAR-Rec)
    packed: bool = False  # self-attention of short users several to a row: the same numbers, less padding (JD)

    pretraining: bool = True  # SEMINAR's search unit learns its own objectives first
    epochs: int = 3
    batch: int = 256
    run: int = 8  # examples of one category that stand together in a batch: they share negatives
    learning_rate: float = 4e-3
    tuning_rate: float = 1e-3  # learning rate of a training that goes on from a bundle (models.training.warm_start)
    temperature: float = 0.07
    per_user: int = 40  # moments of one user that become examples
    per_basket: int = 4
    category_negatives: int = 16  # sampled from the catalogue for each category in a batch
    pool_negatives: int = 512  # sampled from the whole catalogue, for the short tower
    long_negatives: Literal["category", "pool"] = "category"  # where the long tower's negatives come from
    log_q: Literal["negatives", "all", "none"] = "negatives"  # whose scores are corrected for how often they are drawn
    alpha: float = 1.0  # long tower, in the category
    beta: float = 0.5  # short tower, in the category
    pool: float = 1.0  # short tower, whole pool (not in the paper: it searches the whole pool)
    gamma: float = 1.0  # next category
    query: float = 0.5  # live queries, whole pool (not in ULIM: what SEMINAR's relevance objective is to its own space)

    rescore: Literal["none", "repeats", "attention"] = "none"  # what scores the merged candidates anew: attention is beside repeats
    rescore_length: int = 128  # newest events that a candidate is compared with
    rescore_categories: int = 0  # beside the row of the user they come from the rows of so many categories, those touched last
    rescore_searched: int = 32  # of them the GSU keeps so many for the ESU
    rescore_negatives: int = 128  # sampled for each example, beside the user's own items
    rescore_epochs: int = 6

    cut_ms: int | None = None  # events from here on are held out; None: the last `holdout` share of events
    holdout: float = 0.1
    test_per_user: int = 5
    top_k: int = 8  # K: categories searched for each user
    category_source: Literal["gated", "pointer", "generator"] = "gated"  # what names them
    shares: Shares = Shares()  # of the places of a candidate set, list by list
    popular: int = 200  # of a category's popular items so many are kept, and of all
    popular_days: Annotated[float, msgspec.Meta(gt=0)] = 7.0  # half-life of an event in what is popular
    demand: DemandWeight = 0.5  # weight of that in the order of what searches find (models.serving.popularity_prior)

    seminar: SeminarConfig = SeminarConfig()  # SEMINAR's, but for dim, heads, per_user and per_basket, which are those above

    @property
    def search_unit(self) -> SeminarConfig:
        """SEMINAR's configuration with what this one says too."""
        shared = {name: getattr(self, name) for name in ("dim", "heads", "per_user", "per_basket")}
        return msgspec.structs.replace(self.seminar, **shared)

"""How the weights are learned, and which events are held out to evaluate them."""

from typing import Literal

import msgspec


class PretrainingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """SEMINAR's objectives, which train the search unit before ULIM's do. What the paper leaves open: docs/adr/0008."""

    epochs: int = 2  # passes over the examples; 0: no pretraining
    batch: int = 256
    learning_rate: float = 4e-3
    length: int = 128  # L: most recent steps read of a lifelong history
    searched: int = 32  # K: steps that the GSU keeps
    query_share: float = 0.5  # a of s = a q + (1 - a) e
    temperature: float = 0.05
    next_weight: float = 1.0
    alignment: float = 0.3  # weight of the alignment objective
    relevance: float = 1.0  # weight of the relevance objective
    negatives: int = 64  # items sampled per batch as negatives of next pairs
    positions: int = 512  # per batch: positions read by the relevance objective, items aligned


class TrainingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Examples, losses and optimisation. alpha, beta and gamma weigh ULIM's losses; docs/ablations.md has the effect of each."""

    pretraining: PretrainingConfig = PretrainingConfig()
    epochs: int = 3  # passes over the examples
    batch: int = 256
    category_run: int = 8  # examples of one category placed side by side in a batch, so that they share negatives
    learning_rate: float = 4e-3  # peak
    warm_start_rate: float = 1e-3  # peak learning rate of a training that resumes from a bundle (models.training.warm_start)
    per_user: int = 40  # most recent baskets per user that become examples
    per_basket: int = 4  # items per basket that become examples

    category_negatives: int = 16  # sampled from the catalogue for each category of a batch
    pool_negatives: int = 512  # sampled from the whole catalogue, for the short tower
    long_negatives: Literal["category", "pool"] = "category"  # negatives of the long tower
    log_q: Literal["negatives", "all", "none"] = "negatives"  # candidates whose logits are corrected for their sampling frequency
    alpha: float = 1.0  # long tower, within the category
    beta: float = 0.5  # short tower, within the category
    pool_weight: float = 1.0  # short tower, over the whole pool (not in the paper; the short tower searches the whole pool)
    gamma: float = 1.0  # next category
    query_weight: float = 0.5  # live queries, over the whole pool (not in ULIM; the counterpart of SEMINAR's relevance objective)

    cut_ms: int | None = None  # events from here on are held out; None: the most recent `holdout` share of events
    holdout: float = 0.1
    test_per_user: int = 5  # held-out baskets evaluated per user

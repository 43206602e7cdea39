"""What is chosen before a reranker is trained."""

import msgspec

from models.config import Config


class RerankConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of the reranker and of its training. `attention`: SEMINAR's GSU and ESU besides the counts of repeats."""

    attention: bool = False
    dim: int = 32  # d, of the item vectors
    heads: int = 2
    length: int = 128  # newest events that a candidate is compared with
    categories: int = 0  # besides the row of the user, events come from the rows of this many categories, the latest
    searched: int = 32  # of them the GSU keeps this many for the ESU
    negatives: int = 128  # sampled per example, besides the items of the user's history
    epochs: int = 6
    batch: int = 256
    learning_rate: float = 4e-3
    per_user: int = 40  # moments per user that become examples
    per_basket: int = 4

    @classmethod
    def of(cls, config: Config, attention: bool) -> "RerankConfig":
        """For candidates of a bundle trained with `config`."""
        network = {name: getattr(config.network, name) for name in ("dim", "heads")}
        training = {name: getattr(config.training, name) for name in ("batch", "learning_rate", "per_user", "per_basket")}
        return cls(attention=attention, **network, **training)

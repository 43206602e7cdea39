"""How a bundle's vectors become a candidate set. Changing it needs no training of the network."""

from typing import Annotated

import msgspec

MOST = 0.95  # largest share of a candidate set for one list
MOST_DEMAND = 10.0

Part = Annotated[float, msgspec.Meta(ge=0, le=MOST)]
DemandWeight = Annotated[float, msgspec.Meta(ge=0, le=MOST_DEMAND)]


class Shares(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the slots of a candidate set are divided among the lists merged into it (models.serving.quotas).

    The defaults were chosen on validation parts (docs/retrieval.md). A bundle carries its own; settings override them.
    """

    short: Part = 0.2  # of the slots of the K + 1 searches: the search of the whole pool, as a safety net
    even: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.25  # of the categories' slots: divided equally; the rest by probability
    repeat: Part = 0.7  # of the set: repeat candidates, where only searches fill the rest
    query: Part = 0.8  # of the set: a live search, likewise


USUAL = Shares()


class RetrievalConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Categories searched, the shares of lists, and the popularity prior."""

    top_k: int = 8  # K: categories searched per user
    shares: Shares = USUAL
    exclude_bought: bool = True  # a user's purchases are never recommended to that user; training chooses by the log
    popular: int = 200  # popular items kept per category, and overall
    popular_days: Annotated[float, msgspec.Meta(gt=0)] = 7.0  # half-life of an event in popularity
    demand: DemandWeight = 0.5  # weight of the popularity prior in the order of search results (models.serving.popularity_prior)

"""How the places of a candidate set are shared among the lists that it is merged from (models.serving.quotas)."""

from typing import Annotated

import msgspec

MOST = 0.95  # of a set that one list may be given

Part = Annotated[float, msgspec.Meta(ge=0, le=MOST)]


class Shares(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The usual ones were chosen on validation parts (docs/retrieval.md). A bundle carries its own, which a setting can overrule."""

    short: Part = 0.2  # of what the K+1 searches get, the search of the whole pool: the safety net
    even: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.25  # of what the categories get, as much to each; the rest by probability
    repeat: Part = 0.7  # of the set, the user's own items where nothing but searches is beside them
    query: Part = 0.8  # of the set, a live search likewise


USUAL = Shares()

__all__ = ["MOST", "USUAL", "Shares"]

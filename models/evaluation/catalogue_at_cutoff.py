"""What the cascade can find when a split is asked."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from features.events import Item
from models.encoding.catalogue import catalogue_at
from models.evaluation.prediction_points import own_items
from models.evaluation.split import Split


class Offered(NamedTuple):
    """What the cascade can find: the catalogue of the cut, and for a user who had them items that came after it."""

    catalogue: list[Item]
    own: list[Item]


def offered(described: Iterable[Item], told: Sequence[Item], split: Split, users: Iterable[str]) -> Offered:
    """What can be found when these users are asked. `described` and `told` as models.encoding.catalogue.catalogue_at takes them."""
    catalogue = catalogue_at(split.cut_ms, described, told, split.known)
    there = {item.item_id for item in catalogue}
    return Offered(catalogue, own_items(split, users, [item for item in told if item.item_id not in there]))

"""The input of a trained baseline, and its interface."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

Event = tuple[int, str, str, int]  # ts (ms), item, category, kind


class RivalHistory(NamedTuple):
    """All that training may read: each user's events ascending by time, and the items and categories of the whole catalogue."""

    sequences: Mapping[str, Sequence[Event]]
    items: Sequence[str]
    categories: Sequence[str]


class RivalUser(NamedTuple):
    """One user at one moment: the events before it, ascending by time."""

    events: Sequence[Event]


class ValidationAnswer(NamedTuple):
    """The list of a user at a prediction point (`ts`, ms) at the end of the training time, and the target items there."""

    user: str
    ts: int
    wanted: frozenset[str]
    items: Sequence[str]


class Budget(NamedTuple):
    """Limits of tuning and training together: seconds of the rival's clock, passes over the data per training, configurations tried."""

    seconds: float
    epochs: int
    trials: int


class Rival(Protocol):
    """A trained baseline. One seed and one thread give one answer, as long as `Budget.seconds` does not cut training short.

    `validation`, after `fit`: the answers by which the configuration was chosen, of the model that was trained on older events only;
    empty where no configuration was compared.
    """

    name: str
    validation: Sequence[ValidationAnswer]

    def fit(self, history: RivalHistory, seed: int, budget: Budget) -> None:
        """Choose a configuration on the end of the training sequences, then train it on all of them. No trial: the first configuration.

        Raises ValueError where `history` holds no event.
        """

    def recommend(self, users: Sequence[RivalUser], k: int) -> list[list[str]]:
        """The `k` best items of each user, best first, none twice; items from the user's history may be among them.

        Only items with training events are recommended, so a list is shorter than `k` if there are fewer. Unknown items in a
        user's events are ignored; a user without known ones gets the most popular items. Raises RuntimeError before `fit`.
        """

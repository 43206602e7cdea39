"""What a rival is given and what it promises."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

Event = tuple[int, str, str, int]  # ts (ms), item, category, kind


class RivalHistory(NamedTuple):
    """All that training may see: each user's events ascending by time, and the items and categories of the whole catalogue."""

    sequences: Mapping[str, Sequence[Event]]
    items: Sequence[str]
    categories: Sequence[str]


class RivalUser(NamedTuple):
    """One user at one moment: what he did before it, ascending by time."""

    events: Sequence[Event]


class Budget(NamedTuple):
    """What tuning and training together may cost: seconds of the rival's clock, passes over the data a training, configurations tried."""

    seconds: float
    epochs: int
    trials: int


class Rival(Protocol):
    """A trained baseline. One seed and one thread give one answer, as long as `Budget.seconds` does not cut training short."""

    name: str

    def fit(self, history: RivalHistory, seed: int, budget: Budget) -> None:
        """Choose a configuration on the end of the training sequences, then train it on all of them.

        Raises ValueError where `history` holds no event.
        """

    def recommend(self, users: Sequence[RivalUser], k: int) -> list[list[str]]:
        """The `k` best items of each user, best first, none twice, items that he has seen among them.

        Only items with training events ever come, so an answer is shorter than `k` where there are fewer. Unknown items in a
        user's events are passed over; a user without any known one gets the most popular. Raises RuntimeError before `fit`.
        """

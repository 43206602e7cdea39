"""The items that serving withholds, withheld from every contender: all of them answer the same task.

The retriever applies these rules itself (models.serving.retriever); baselines are wrapped.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from features.availability import is_available
from features.events import Item
from features.rows import UserRow
from models.evaluation.baselines import Answer, Contender
from models.evaluation.prediction_points import Question

MOST_EXTRA = 1000  # items requested beyond k, at most, so that k remain


class ServingRules(NamedTuple):
    """Whether a user's purchases are excluded, and the items that are out of stock."""

    exclude_bought: bool = False
    out_of_stock: frozenset[str] = frozenset()

    @classmethod
    def of(cls, exclude_bought: bool, catalogue: Iterable[Item]) -> "ServingRules":
        """The rules for a catalogue as known at the cut."""
        return cls(exclude_bought, frozenset(item.item_id for item in catalogue if not is_available(item)))

    def bought(self, row: UserRow) -> frozenset[str]:
        """The purchases that are withheld from a user."""
        return frozenset(event.item for event in row.bought) if self.exclude_bought else frozenset()

    def kept(self, items: Iterable[str], row: UserRow) -> list[str]:
        """The items that may be recommended to a user, in the same order."""
        bought = self.bought(row)
        return [item for item in items if item not in bought and item not in self.out_of_stock]


NO_RULES = ServingRules()


class UnderServingRules:
    """A contender whose lists leave out what the rules withhold; the items that follow move up."""

    def __init__(self, contender: Contender, rules: ServingRules) -> None:
        self._contender, self._rules = contender, rules

    def answer(self, asked: Sequence[Question], k: int) -> list[Answer]:
        """As promised by `Contender`; with more than `MOST_EXTRA` withheld items a list may be shorter than `k`."""
        rules = self._rules
        withheld = max((len(rules.bought(question.row)) for question in asked), default=0) + len(rules.out_of_stock)
        answers = self._contender.answer(asked, k + min(MOST_EXTRA, withheld))
        return [
            answer._replace(items=rules.kept(answer.items, question.row)[:k], fresh=rules.kept(answer.fresh, question.row)[:k])
            for answer, question in zip(answers, asked, strict=True)
        ]


def under(contender: Contender, rules: ServingRules) -> Contender:
    """The contender under these rules: itself where they withhold nothing."""
    return contender if rules == NO_RULES else UnderServingRules(contender, rules)

"""Rows `NAME + repeats`: the user's repeats merged into the lists of a trained baseline by the rule and the code of the cascade.

The baseline's list stands where the cascade's searches stand: it weighs 1, and the list of repeats (models.serving.repeat) has a share of
the slots beside it (models.serving.quotas). The share is the best of the grid of models.evaluation.share_selection by recall@50 on the
prediction points that the baseline's configurations were compared on, which lie before the cut.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from features.history import Deeds, Timeline
from features.rows import UserRow
from models.config.retrieval import Shares
from models.evaluation.baselines import Answer, Contender
from models.evaluation.prediction_points import Question
from models.evaluation.score import BATCH
from models.evaluation.serving_rules import ServingRules
from models.evaluation.share_selection import CUT, TRIED, enough
from models.index import Found, View, Where
from models.serving import repeat
from models.serving.cascade import Searched, merged
from models.serving.quotas import Extra
from research.baselines import ValidationAnswer
from research.baselines.corpus import recall

ONE_LIST = Shares(short=0.0, even=0.0)  # all of the slots of the searches are those of one list


class RepeatShare(msgspec.Struct, frozen=True):
    """The share of repeats for one baseline and seed, on how much it was chosen, and recall@50 there without repeats and with this share.

    `points` is 0 where there was too little to choose on: the share is then that of the cascade.
    """

    share: float
    users: int = 0
    points: int = 0
    before: float = 0.0
    after: float = 0.0


class RepeatMerge:
    """Merges repeats into ranked lists, over the items of `view`, by the same rules as serving."""

    def __init__(self, view: View, rules: ServingRules) -> None:
        self.rules = rules
        self._view = view

    def repeats(self, rows: Sequence[UserRow], k: int) -> Extra:
        """The best `k` repeats of B users, without a share."""
        excluded = [self.rules.bought(row) for row in rows]
        return repeat.repeated(self._view, rows, excluded, k, Where(available=True), 0.0)

    def merged(self, ranked: Sequence[Sequence[str]], repeats: Extra, share: float) -> list[list[str]]:
        """The items of B users, best first, as many as `repeats` has slots. `ranked` holds items that the rules do not withhold."""
        users, k = repeats.found.numbers.shape
        base = Found.nothing(users, k)
        for row, items in enumerate(ranked):
            numbers = self._view.numbers(items[:k])
            numbers = numbers[numbers >= 0]
            base.numbers[row, : len(numbers)] = numbers
        searched = Searched(Found.nothing(users, k), base, [[("", 1.0)]] * users)
        candidates = merged(self._view, searched, [repeats._replace(share=share)], ONE_LIST)
        return [[candidate.item for candidate in mine] for mine in candidates]


class WithRepeats:
    """A baseline, under the serving rules, with repeats merged into its lists. Lists of new items stay as they are."""

    def __init__(self, contender: Contender, merge: RepeatMerge, share: float) -> None:
        self._contender, self._merge, self._share = contender, merge, share

    def answer(self, asked: Sequence[Question], k: int) -> list[Answer]:
        """As promised by `Contender`."""
        answers = self._contender.answer(asked, k)
        repeats = self._merge.repeats([question.row for question in asked], k)
        lists = self._merge.merged([answer.items for answer in answers], repeats, self._share)
        return [answer._replace(items=mine) for answer, mine in zip(answers, lists, strict=True)]


class RepeatShares:
    """Chooses shares of repeats on validation answers. `known` is the history before the cut: nothing else is read."""

    def __init__(self, known: Mapping[str, Deeds], merge: RepeatMerge, default: float) -> None:
        self.merge, self.default = merge, default
        self._known = known
        self._rows: dict[tuple[str, int], UserRow] = {}

    def choose(self, validation: Sequence[ValidationAnswer]) -> RepeatShare:
        """The share of the grid with the best recall@50, the smallest of equal ones; the default on too few users."""
        users = len({answer.user for answer in validation})
        if not enough(users):
            return RepeatShare(self.default, users)
        self._replay(validation)
        batches = [validation[start : start + BATCH] for start in range(0, len(validation), BATCH)]
        recalls = np.sum([self._recalls(batch) for batch in batches], axis=0) / len(validation)  # one per share of the grid
        best = int(np.argmax(recalls))
        return RepeatShare(TRIED["repeat"][best], users, len(validation), float(recalls[0]), float(recalls[best]))

    def _recalls(self, batch: Sequence[ValidationAnswer]) -> list[float]:
        """The sum of recall@50 of a batch for each share of the grid."""
        rows = [self._rows[answer.user, answer.ts] for answer in batch]
        ranked = [self.merge.rules.kept(answer.items, row) for answer, row in zip(batch, rows, strict=True)]
        repeats, wanted = self.merge.repeats(rows, CUT), [answer.wanted for answer in batch]
        return [recall(self.merge.merged(ranked, repeats, share), wanted, CUT) * len(batch) for share in TRIED["repeat"]]

    def _replay(self, validation: Sequence[ValidationAnswer]) -> None:
        """Compute the rows just before each point that is not there yet; all baselines are compared on the same points."""
        times: defaultdict[str, set[int]] = defaultdict(set)
        for answer in validation:
            if (answer.user, answer.ts) not in self._rows:
                times[answer.user].add(answer.ts)
        for user, several in times.items():
            timeline = Timeline(self._known[user])
            for ts in sorted(several):
                timeline.advance(ts)
                self._rows[user, ts] = timeline.row

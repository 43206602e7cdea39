"""A trained baseline (research.baselines) as a contender."""

from collections.abc import Iterable, Mapping, Sequence

from features.history import Deeds
from features.rows import Behaviour
from models.evaluation.baselines import Answer, unseen
from models.evaluation.prediction_points import Question
from research.baselines import Rival, RivalHistory, RivalUser

MOST_EXTRA = 1000  # items requested beyond k, at most, so that k new ones remain


class TrainedBaseline:
    """A fitted rival."""

    def __init__(self, rival: Rival) -> None:
        self._rival = rival

    def answer(self, asked: Sequence[Question], k: int) -> list[Answer]:
        """As promised by `Contender`; for a user with more than `MOST_EXTRA` items the list of new ones may be shorter than `k`."""
        extra = min(MOST_EXTRA, max((len(question.had) for question in asked), default=0))
        lists = self._rival.recommend([RivalUser(sequence(question.past)) for question in asked], k + extra)
        return [Answer(mine[:k], unseen(mine, question, k)) for mine, question in zip(lists, asked, strict=True)]


def rival_history(known: Mapping[str, Deeds], items: Sequence[str], categories: Iterable[str]) -> RivalHistory:
    """The known history as rivals take it, with the whole catalogue."""
    return RivalHistory({user: sequence(deeds.events) for user, deeds in known.items()}, items, sorted(set(categories)))


def sequence(events: Iterable[Behaviour]) -> list[tuple[int, str, str, int]]:
    """(ts in ms, item, category, kind) of each event, in the order given."""
    return [(event.ts, event.item, event.category, event.kind) for event in events]

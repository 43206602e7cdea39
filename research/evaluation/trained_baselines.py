"""A trained baseline of a library (research.baselines) as a contender."""

from collections.abc import Iterable, Mapping, Sequence

from features.history import Deeds
from features.rows import Behaviour
from models.evaluation.baselines import Answer, unseen
from models.evaluation.prediction_points import Question
from research.baselines import Rival, RivalHistory, RivalUser

MOST_EXTRA = 1000  # so many items more than k are asked for at most, to have k left without those the user had


class TrainedBaseline:
    """A fitted rival."""

    def __init__(self, rival: Rival) -> None:
        self._rival = rival

    def answer(self, asked: Sequence[Question], k: int) -> list[Answer]:
        """As promised by `Contender`; of a user who had more than `MOST_EXTRA` items the fresh list may be short."""
        extra = min(MOST_EXTRA, max((len(question.had) for question in asked), default=0))
        lists = self._rival.recommend([RivalUser(sequence(question.past)) for question in asked], k + extra)
        return [Answer(mine[:k], unseen(mine, question, k)) for mine, question in zip(lists, asked, strict=True)]


def rival_history(known: Mapping[str, Deeds], items: Sequence[str], categories: Iterable[str]) -> RivalHistory:
    """The known history as rivals take it, beside the whole catalogue."""
    return RivalHistory({user: sequence(deeds.events) for user, deeds in known.items()}, items, sorted(set(categories)))


def sequence(events: Iterable[Behaviour]) -> list[tuple[int, str, str, int]]:
    """(ts in ms, item, category, kind) of each event, in the order given."""
    return [(event.ts, event.item, event.category, event.kind) for event in events]

"""What an evaluation has finished, kept in a folder, so that one that was stopped goes on: bundles, and answers of trained contenders."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import numpy as np

from models.bundle import Bundle, load, save
from models.directories import replaced
from models.evaluation.baselines import Answer, Contender
from models.evaluation.metrics import DEPTH
from models.evaluation.prediction_points import Question
from models.evaluation.score import BATCH
from research.digests import digest
from research.sections import commit

BUNDLE, ANSWERS, FINISHED = "bundle", "answers.npy", "finished.json"
Made = TypeVar("Made")


class Finished(msgspec.Struct, frozen=True):
    """What a part took, in the seconds of who made it, and the commit that it was made on."""

    seconds: float
    commit: str


class Part(NamedTuple, Generic[Made]):
    """What was made or found: a bundle, or a contender; the seconds that making it took."""

    made: Made
    seconds: float


class Work:
    """Parts of evaluations in `folder`, each under the digest of all that it follows from, the code aside; None: nothing is kept.

    `commits` are those on which the parts in use were made.
    """

    def __init__(self, folder: Path | None, clock: Callable[[], float]) -> None:
        self._folder, self._clock = folder, clock
        self.commits = {commit()}

    def bundle(self, facts: Sequence[Any], device: str, learn: Callable[[], Bundle]) -> Part[Bundle]:
        """The bundle that follows from `facts`, learnt where it is not there."""
        if self._folder is None:
            return self._timed(learn)
        place = self._folder / f"bundle-{digest(facts)}"
        if place.exists():
            return Part(load(place / BUNDLE, device), self._seconds(place))
        part = self._timed(learn)
        with replaced(place) as new:
            save(part.made, new / BUNDLE)
            _finish(new, part.seconds)
        return part

    def contender(
        self, facts: Sequence[Any], fit: Callable[[], Contender], asked: Sequence[Question], items: Sequence[str]
    ) -> Part[Contender]:
        """The contender that follows from `facts`, fitted where it has not answered `asked`; with a folder it answers all at once.

        `items` are those of the catalogue, which it answers from.
        """
        if self._folder is None:
            return self._timed(fit)
        place = self._folder / f"answers-{digest([*facts, [(question.user, question.ts) for question in asked], items])}"
        if not place.exists():
            part = self._timed(fit)
            with replaced(place) as new:
                np.save(new / ANSWERS, _answers(part.made, asked, items))
                _finish(new, part.seconds)
        return Part(Answered(place / ANSWERS, asked, items), self._seconds(place))

    def _timed(self, make: Callable[[], Made]) -> Part[Made]:
        began = self._clock()
        made = make()
        return Part(made, self._clock() - began)

    def _seconds(self, place: Path) -> float:
        finished = msgspec.json.decode((place / FINISHED).read_bytes(), type=Finished)
        self.commits.add(finished.commit)
        return finished.seconds


class Answered:
    """A contender as it answered: one question after the other, each known by its user and moment."""

    def __init__(self, path: Path, asked: Sequence[Question], items: Sequence[str]) -> None:
        self._lists = np.load(path, mmap_mode="r")  # (Q, 2, DEPTH) int32 places among `items`, -1 to the end
        self._items = items
        self._row = {(question.user, question.ts): row for row, question in enumerate(asked)}

    def answer(self, asked: Sequence[Question], k: int) -> list[Answer]:
        """As promised by `Contender`, for what was asked then and `k` of at most DEPTH."""
        lists = (self._lists[self._row[question.user, question.ts]] for question in asked)
        return [Answer(self._named(items[:k]), self._named(fresh[:k])) for items, fresh in lists]

    def _named(self, places: np.ndarray) -> list[str]:
        return [self._items[place] for place in places.tolist() if place >= 0]


def _answers(contender: Contender, asked: Sequence[Question], items: Sequence[str]) -> np.ndarray:
    """Places among `items` (Q, 2, DEPTH) int32 of both lists of each answer, -1 to the end."""
    number = {item: at for at, item in enumerate(items)}
    lists = np.full((len(asked), 2, DEPTH), -1, np.int32)
    for start in range(0, len(asked), BATCH):
        for row, answer in enumerate(contender.answer(asked[start : start + BATCH], DEPTH), start):
            for which, found in enumerate((answer.items, answer.fresh)):
                lists[row, which, : len(found)] = [number[item] for item in found]
    return lists


def _finish(place: Path, seconds: float) -> None:
    (place / FINISHED).write_bytes(msgspec.json.encode(Finished(seconds, commit())))

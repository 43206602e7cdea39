"""Finished parts of an evaluation, kept in a folder so that an interrupted one resumes: bundles, and the answers of trained baselines."""

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
from research.evaluation.repeats import RepeatShare
from research.sections import commit

BUNDLE, ANSWERS, FINISHED = "bundle", "answers.npy", "finished.json"
Made = TypeVar("Made")


class Finished(msgspec.Struct, frozen=True):
    """What a part took, in seconds of its clock, the commit it was made on, and the share of repeats of a trained baseline."""

    seconds: float
    commit: str
    repeats: RepeatShare | None = None


class Fitted(NamedTuple):
    """A trained baseline and the share of repeats chosen for it."""

    contender: Contender
    repeats: RepeatShare


class Part(NamedTuple, Generic[Made]):
    """What was made or found: a bundle, or a baseline; the seconds that making it took."""

    made: Made
    seconds: float


class Work:
    """Parts of evaluations in `folder`, each named by a digest of all its inputs except the code; None: nothing is kept.

    `commits` are those on which the parts in use were made.
    """

    def __init__(self, folder: Path | None, clock: Callable[[], float]) -> None:
        self._folder, self._clock = folder, clock
        self.commits = {commit()}

    def bundle(self, facts: Sequence[Any], device: str, learn: Callable[[], Bundle]) -> Part[Bundle]:
        """The bundle that follows from `facts`, trained if it is not there."""
        if self._folder is None:
            return self._timed(learn)
        place = self._folder / f"bundle-{digest(facts)}"
        if place.exists():
            return Part(load(place / BUNDLE, device), self._finished(place).seconds)
        part = self._timed(learn)
        with replaced(place) as new:
            save(part.made, new / BUNDLE)
            _finish(new, part.seconds)
        return part

    def contender(self, facts: Sequence[Any], fit: Callable[[], Fitted], asked: Sequence[Question], items: Sequence[str]) -> Part[Fitted]:
        """The baseline that follows from `facts`, fitted if it has no answers to `asked`; it answers all of them at once.

        `items` are those of the catalogue, from which it answers.
        """
        if self._folder is None:
            part = self._timed(fit)
            return part._replace(made=part.made._replace(contender=Answered(_answers(part.made.contender, asked, items), asked, items)))
        place = self._folder / f"answers-{digest([*facts, [(question.user, question.ts) for question in asked], items])}"
        if not place.exists():
            part = self._timed(fit)
            with replaced(place) as new:
                np.save(new / ANSWERS, _answers(part.made.contender, asked, items))
                _finish(new, part.seconds, part.made.repeats)
        finished = self._finished(place)
        if finished.repeats is None:
            raise ValueError(f"{place} has no share of repeats: remove it")
        return Part(Fitted(Answered(np.load(place / ANSWERS, mmap_mode="r"), asked, items), finished.repeats), finished.seconds)

    def _timed(self, make: Callable[[], Made]) -> Part[Made]:
        began = self._clock()
        made = make()
        return Part(made, self._clock() - began)

    def _finished(self, place: Path) -> Finished:
        finished = msgspec.json.decode((place / FINISHED).read_bytes(), type=Finished)
        self.commits.add(finished.commit)
        return finished


class Answered:
    """A contender's stored answers, each found by its user and moment. `lists` (Q, 2, DEPTH) int32: places among `items`, then -1."""

    def __init__(self, lists: np.ndarray, asked: Sequence[Question], items: Sequence[str]) -> None:
        self._lists = lists
        self._items = items
        self._row = {(question.user, question.ts): row for row, question in enumerate(asked)}

    def answer(self, asked: Sequence[Question], k: int) -> list[Answer]:
        """As promised by `Contender`, for the stored questions and `k` up to DEPTH."""
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


def _finish(place: Path, seconds: float, repeats: RepeatShare | None = None) -> None:
    (place / FINISHED).write_bytes(msgspec.json.encode(Finished(seconds, commit(), repeats)))

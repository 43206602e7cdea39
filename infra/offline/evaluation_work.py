"""What an evaluation has finished, kept in a folder, so that one that was stopped goes on: bundles, and answers of trained contenders."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from shutil import rmtree
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import numpy as np

from infra.offline.sections import commit
from models.bundle import Bundle, load, save
from models.evaluation.contenders import Answer, Contender
from models.evaluation.metrics import DEPTH
from models.evaluation.questions import Question
from models.evaluation.tally import BATCH

Made = TypeVar("Made")

FINISHED = "finished.json"  # is written last: a part without it is made again


class Finished(msgspec.Struct, frozen=True):
    """What a part took, in the seconds of who made it, and the commit that it was made on."""

    seconds: float
    commit: str


class Part(NamedTuple, Generic[Made]):
    """What was made or found: a bundle, or a contender; the seconds that making it took."""

    made: Made
    seconds: float


class Work:
    """Parts of evaluations in `folder`, each under the digest of all that it follows from, the code aside; None: nothing is kept."""

    def __init__(self, folder: Path | None, clock: Callable[[], float]) -> None:
        self._folder, self._clock = folder, clock
        self.commits = {commit()}

    def bundle(self, told: Sequence[Any], device: str, learn: Callable[[], Bundle]) -> Part[Bundle]:
        """The bundle that `told` names, learnt where it is not there."""
        place = self._place("bundle", told)
        if (found := self._finished(place)) is not None and place is not None:
            return Part(load(place / "bundle", device), found.seconds)
        part = self._made(learn)
        if place is not None:
            save(part.made, place / "bundle")
            _finish(place, part.seconds)
        return part

    def contender(
        self, told: Sequence[Any], fit: Callable[[], Contender], asked: Sequence[Question], items: Sequence[str]
    ) -> Part[Contender]:
        """The contender that `told` names, fitted where it has not answered yet; with a folder it is asked all of `asked` at once.

        `items` are those of the catalogue, which it answers from.
        """
        place = self._place("answers", told)
        if place is None:
            return self._made(fit)
        if (found := self._finished(place)) is not None:
            return Part(Answered(place, asked, items), found.seconds)
        part = self._made(fit)
        _write(place, part.made, asked, items)
        _finish(place, part.seconds)
        return Part(Answered(place, asked, items), part.seconds)

    def _made(self, make: Callable[[], Made]) -> Part[Made]:
        began = self._clock()
        made = make()
        return Part(made, self._clock() - began)

    def _place(self, kind: str, told: Sequence[Any]) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / f"{kind}-{blake2b(msgspec.json.encode(told), digest_size=10).hexdigest()}"

    def _finished(self, place: Path | None) -> Finished | None:
        if place is None:
            return None
        if not (place / FINISHED).exists():
            rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            return None
        found = msgspec.json.decode((place / FINISHED).read_bytes(), type=Finished)
        self.commits.add(found.commit)
        return found


class Answered:
    """A contender as it answered: one question after the other, each known by its user and moment."""

    def __init__(self, place: Path, asked: Sequence[Question], items: Sequence[str]) -> None:
        self._lists = np.load(place / "answers.npy", mmap_mode="r")  # (Q, 2, DEPTH) int32 places among `items`, -1 to the end
        self._items = items
        self._row = {(question.user, question.ts): row for row, question in enumerate(asked)}

    def answer(self, asked: Sequence[Question], k: int) -> list[Answer]:
        """As promised by `Contender`, for what was asked then and `k` of at most DEPTH."""
        lists = (self._lists[self._row[question.user, question.ts]] for question in asked)
        return [Answer(self._named(items[:k]), self._named(fresh[:k])) for items, fresh in lists]

    def _named(self, places: np.ndarray) -> list[str]:
        return [self._items[place] for place in places.tolist() if place >= 0]


def _write(place: Path, contender: Contender, asked: Sequence[Question], items: Sequence[str]) -> None:
    number = {item: at for at, item in enumerate(items)}
    lists = np.full((len(asked), 2, DEPTH), -1, np.int32)
    for start in range(0, len(asked), BATCH):
        for row, answer in enumerate(contender.answer(asked[start : start + BATCH], DEPTH), start):
            for which, found in enumerate((answer.items, answer.fresh)):
                lists[row, which, : len(found)] = [number[item] for item in found]
    np.save(place / "answers.npy", lists)


def _finish(place: Path, seconds: float) -> None:
    staging = place / f"{FINISHED}.part"
    staging.write_bytes(msgspec.json.encode(Finished(seconds, commit())))
    staging.replace(place / FINISHED)

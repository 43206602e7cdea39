"""The log of a training as CSV, one row per step, for plots and comparisons."""

import csv
import os
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from models.training.phase import TrainingProgress

HEAD = ("phase", "step", "steps", "loss", "learning_rate", "examples")
Row = tuple[str, ...]


class TrainingLog:
    """Writes each step. An existing file is continued if the training resumes, else replaced.

    The first step written decides: rows from that step on are dropped, or all rows if it is the first step of a training.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def tell(self, now: TrainingProgress) -> None:
        """Write a step that is done; progress without `examples` is not written."""
        if not now.examples:
            return
        if self._file is None:
            self._file = self._resumed(now)
        csv.writer(self._file).writerow((now.phase, now.step, now.steps, f"{now.loss:.6g}", f"{now.learning_rate:.6g}", now.examples))
        self._file.flush()

    def _resumed(self, first: TrainingProgress) -> TextIO:
        kept = _before(read_log(self._path), first) if self._path.exists() else []
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_suffix(".new")
        with beside.open("w", newline="") as file:
            csv.writer(file).writerows([HEAD, *kept])
        os.replace(beside, self._path)
        return self._path.open("a", newline="")


def read_log(path: Path) -> list[Row]:
    """The rows of a log, without its header and without a truncated last row."""
    with path.open(newline="") as file:
        return [tuple(row) for row in csv.reader(file) if len(row) == len(HEAD) and tuple(row) != HEAD]


def _before(rows: list[Row], first: TrainingProgress) -> list[Row]:
    """The rows before a step: none of its phase from that step on, and none after those."""
    kept = []
    for row in rows:
        if row[0] == first.phase and int(row[1]) >= first.step:
            break
        kept.append(row)
    return kept

"""A rival: its configuration chosen on the end of the training time, trained, and asked."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from research.baselines.configuration import Configuration, draw
from research.baselines.contract import Budget, Event, RivalHistory, RivalUser
from research.baselines.corpus import Corpus, CorpusQuestion, recall, split
from research.baselines.rechub import Encoder
from research.baselines.training import BaselineTraining, rank

DEPTH = 50
PATIENCE = 2
FINAL = 1.25  # the last training sees more data than a trial


class Trial(NamedTuple):
    """A configuration tried: its best recall on the validation part, and after how many epochs."""

    recall: float
    epochs: int
    settings: Configuration


class Model(NamedTuple):
    """A trained encoder and the corpus whose numbers it speaks."""

    encoder: Encoder
    corpus: Corpus
    seed: int

    def recommend(self, users: Sequence[RivalUser], k: int) -> list[list[str]]:
        """See Rival."""
        k = max(0, k)
        answers = [self.corpus.items[:k] for _ in users]
        length = self.encoder.settings.length
        known = [(at, *self.corpus.numbers(user.events[-4 * length :])) for at, user in enumerate(users)]
        known = [(at, items[-length:], categories[-length:]) for at, items, categories in known if len(items)]
        if not known or not k:
            return answers
        rows = np.zeros((2, len(known), length), np.int64)
        for row, (_, items, categories) in enumerate(known):
            rows[0, row, length - len(items) :] = items
            rows[1, row, length - len(items) :] = categories
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            found = rank(self.encoder, torch.from_numpy(rows[0]), torch.from_numpy(rows[1]), k).tolist()
        for (at, *_), numbers in zip(known, found, strict=True):
            answers[at] = [self.corpus.items[number - 1] for number in numbers]
        return answers


class TrainedRival:
    """A model of torch-rechub as a Rival. `clock` gives seconds; kinds of events are not looked at."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self.name = name
        self.trials: list[Trial] = []
        self._clock = clock
        self._model: Model | None = None

    def fit(self, history: RivalHistory, seed: int, budget: Budget) -> None:
        """See Rival."""
        sequences = history.sequences
        if not any(sequences.values()):
            raise ValueError("there is no event to train on")
        start = self._clock()
        with torch.random.fork_rng(devices=[]):
            best = self._tune(sequences, seed, budget, start)
            self._model = self._train(sequences, best, seed, start + budget.seconds)

    def recommend(self, users: Sequence[RivalUser], k: int) -> list[list[str]]:
        """See Rival."""
        if self._model is None:
            raise RuntimeError(f"{self.name} is not trained: call fit first")
        return self._model.recommend(users, k)

    def _tune(self, sequences: Mapping[str, Sequence[Event]], seed: int, budget: Budget, start: float) -> Trial:
        """Every configuration has the same slice of the time, the last training one and a quarter."""
        older, questions = split(sequences)
        if not questions:
            return Trial(0.0, budget.epochs, Configuration())
        corpus = Corpus(older)
        tuning_s = budget.seconds * budget.trials / (budget.trials + FINAL)
        self.trials = []
        for n, settings in enumerate(draw(self.name, budget.trials, seed)):
            until = start + tuning_s * (n + 1) / budget.trials
            self.trials.append(self._try(corpus, questions, settings, seed, budget.epochs, until))
        return max(self.trials, key=lambda trial: trial.recall)

    def _try(self, corpus: Corpus, questions: list[CorpusQuestion], settings: Configuration, seed: int, epochs: int, until: float) -> Trial:
        training = BaselineTraining(self.name, corpus, settings, seed)
        model = Model(training.encoder, corpus, seed)
        best = Trial(-1.0, 1, settings)
        for epoch in range(1, epochs + 1):
            whole = training.epoch(lambda: self._clock() < until)
            found = recall(model.recommend([asked.user for asked in questions], DEPTH), questions, DEPTH)
            if found > best.recall:
                best = Trial(found, epoch, settings)
            if not whole or epoch - best.epochs >= PATIENCE:
                break
        return best

    def _train(self, sequences: Mapping[str, Sequence[Event]], chosen: Trial, seed: int, until: float) -> Model:
        corpus = Corpus(sequences)
        training = BaselineTraining(self.name, corpus, chosen.settings, seed)
        for _ in range(chosen.epochs):
            if not training.epoch(lambda: self._clock() < until):
                break
        return Model(training.encoder, corpus, seed)

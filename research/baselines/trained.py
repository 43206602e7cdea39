"""A model of torch-rechub as a rival: its configuration is chosen on the end of the training time, then it is trained and ranks."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from research.baselines.configuration import FIRST, Configuration, draw
from research.baselines.contract import Budget, Event, RivalHistory, RivalUser, ValidationAnswer
from research.baselines.corpus import Corpus, CorpusQuestion, recall, split
from research.baselines.rechub import Encoder
from research.baselines.training import BaselineTraining, rank

CUT = 50  # configurations are compared by recall@50
DEPTH = 200  # items of a validation answer, so that 50 remain without those that serving withholds
PATIENCE = 2
FINAL = 1.25  # the last training sees more data than a trial


class Trial(NamedTuple):
    """A configuration tried: its best recall on the validation part, after how many epochs, and its answers then."""

    recall: float
    epochs: int
    settings: Configuration
    answers: Sequence[ValidationAnswer] = ()


class Model(NamedTuple):
    """A trained encoder and the corpus that numbers its items."""

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
    """A model of torch-rechub as a Rival. `clock` gives seconds; kinds of events are not used."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self.name = name
        self.trials: list[Trial] = []
        self.validation: Sequence[ValidationAnswer] = ()
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
            self.validation = best.answers
            self._model = self._train(sequences, best, seed, start + budget.seconds)

    def recommend(self, users: Sequence[RivalUser], k: int) -> list[list[str]]:
        """See Rival."""
        if self._model is None:
            raise RuntimeError(f"{self.name} is not trained: call fit first")
        return self._model.recommend(users, k)

    def _tune(self, sequences: Mapping[str, Sequence[Event]], seed: int, budget: Budget, start: float) -> Trial:
        """Every configuration has the same slice of the time, the last training one and a quarter."""
        self.trials = []
        older, questions = split(sequences)
        if not questions or not budget.trials:
            return Trial(0.0, budget.epochs, FIRST[self.name])
        corpus = Corpus(older)
        tuning_s = budget.seconds * budget.trials / (budget.trials + FINAL)
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
            lists = model.recommend([point.user for point in questions], DEPTH)
            found = recall(lists, [point.wanted for point in questions], CUT)
            if found > best.recall:
                pairs = zip(questions, lists, strict=True)
                answers = [ValidationAnswer(point.user_id, point.ts, point.wanted, items) for point, items in pairs]
                best = Trial(found, epoch, settings, answers)
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

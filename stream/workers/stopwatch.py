"""The time of each step of a batch."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from time import perf_counter
from types import TracebackType

from stream.pipelines.batch import StepName

ELSEWHERE = "other"


class Stopwatch:
    """Measures the steps of one batch (stream.pipelines.batch.Steps), in seconds. One step runs at a time, in whichever thread."""

    def __init__(self, clock_s: Callable[[], float] = perf_counter) -> None:
        self.seconds: dict[str, float] = {}  # by step, without the time of steps inside it
        self._clock_s = clock_s
        self._began = self._since = clock_s()
        self._running: list[str] = []
        self._failed: tuple[BaseException | None, str] = None, ""

    def __call__(self, step: StepName) -> AbstractContextManager[None]:
        """A context in which `step` runs."""
        return _Lap(self, step)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the stopwatch was made."""
        return self._clock_s() - self._began

    def step_of(self, error: BaseException) -> str:
        """The innermost step that raised this error; `other` if none did."""
        raised, step = self._failed
        return step if raised is error else ELSEWHERE

    def begin(self, step: str) -> None:
        """A step begins, inside the one that runs."""
        self._lap()
        self._running.append(step)

    def end(self, error: BaseException | None) -> None:
        """The step that runs ends, with or without an error."""
        self._lap()
        step = self._running.pop()
        if error is not None and error is not self._failed[0]:
            self._failed = error, step

    def _lap(self) -> None:
        now = self._clock_s()
        if self._running:
            step = self._running[-1]
            self.seconds[step] = self.seconds.get(step, 0.0) + now - self._since
        self._since = now


class _Lap(AbstractContextManager[None]):
    """One step. A class, as a generator costs three times as much, which shows on batches of one record."""

    __slots__ = ("_step", "_watch")

    def __init__(self, watch: Stopwatch, step: str) -> None:
        self._watch, self._step = watch, step

    def __enter__(self) -> None:
        self._watch.begin(self._step)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._watch.end(error)

"""The time of each step of a batch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from stream.steps import StepName

ELSEWHERE = "other"


class Stopwatch:
    """Measures the steps of one batch (stream.steps.Steps), in seconds. One step runs at a time, in whichever thread."""

    def __init__(self, clock_s: Callable[[], float] = perf_counter) -> None:
        self.seconds: dict[str, float] = {}  # by step, without the time of steps inside it
        self._clock_s = clock_s
        self._began = self._since = clock_s()
        self._running: list[str] = []
        self._failed: tuple[BaseException | None, str] = None, ""

    @contextmanager
    def __call__(self, step: StepName) -> Iterator[None]:
        """A context in which `step` runs."""
        self._lap()
        self._running.append(step)
        try:
            yield
        except Exception as error:
            if error is not self._failed[0]:
                self._failed = error, step
            raise
        finally:
            self._lap()
            self._running.pop()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the stopwatch was made."""
        return self._clock_s() - self._began

    def step_of(self, error: BaseException) -> str:
        """The innermost step that raised this error; `other` if none did."""
        raised, step = self._failed
        return step if raised is error else ELSEWHERE

    def _lap(self) -> None:
        now = self._clock_s()
        if self._running:
            step = self._running[-1]
            self.seconds[step] = self.seconds.get(step, 0.0) + now - self._since
        self._since = now

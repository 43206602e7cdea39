"""The one policy of retries, on tenacity: how long to wait between tries, and when to give up."""

import random
import time
from collections.abc import Awaitable, Callable
from threading import Event
from typing import NamedTuple

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
)

Retryable = Callable[[BaseException], bool]
Tell = Callable[[Exception, int], None]


class RetryPolicy(NamedTuple):
    """Waits between tries, in seconds: the first, the longest, and after how long in all to give up.

    Waits double, and last at least as long as the error asks for (`retry_after_s`), at most `longest_s`. Half of each is jitter, so
    that workers that failed together do not return together.
    """

    first_s: float = 0.1
    longest_s: float = 5.0
    give_up_after_s: float = 300.0

    def wait_s(self, tries: int, at_least_s: float, random_share: float) -> float:
        """Seconds to wait after this many failed tries; `random_share` (0 to 1) is the jitter."""
        ceiling: float = min(self.longest_s, max(self.first_s * 2 ** min(tries - 1, 30), at_least_s))
        return ceiling * (0.5 + 0.5 * random_share)

    def retrying(self, retryable: Retryable, tell: Tell | None = None, stopping: Event | None = None) -> Retrying:
        """Calls a function until it returns. The last error is raised; `tell(error, tries)` is called before each wait.

        Once `stopping` is set a wait ends, and the next error is the last.
        """
        late = stop_after_delay(self.give_up_after_s)
        return Retrying(
            retry=retry_if_exception(retryable),
            wait=self._wait,
            stop=late if stopping is None else late | stop_when_event_set(stopping),
            sleep=time.sleep if stopping is None else sleep_using_event(stopping),
            before_sleep=_telling(tell),
            reraise=True,
        )

    def retrying_async(self, retryable: Retryable, tell: Tell | None, sleep: Callable[[float], Awaitable[None]]) -> AsyncRetrying:
        """The same for a coroutine function; what `sleep` raises ends it."""
        return AsyncRetrying(
            retry=retry_if_exception(retryable),
            wait=self._wait,
            stop=stop_after_delay(self.give_up_after_s),
            sleep=sleep,
            before_sleep=_telling(tell),
            reraise=True,
        )

    def _wait(self, state: RetryCallState) -> float:
        return self.wait_s(state.attempt_number, getattr(_error(state), "retry_after_s", 0.0), random.random())


def _telling(tell: Tell | None) -> Callable[[RetryCallState], None]:
    def before_sleep(state: RetryCallState) -> None:
        error = _error(state)
        if tell is not None and isinstance(error, Exception):
            tell(error, state.attempt_number)

    return before_sleep


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None

"""Retries: how long they wait, what they retry, and when they give up."""

import asyncio

import pytest

from features.errors import RetryableError
from features.retries import RetryPolicy

QUICK = RetryPolicy(first_s=0.001, longest_s=0.002, give_up_after_s=60.0)


def retryable(error):
    return isinstance(error, RetryableError)


class Failing:
    """Raises the given errors, one per call, then returns what it was called with."""

    def __init__(self, *errors):
        self.errors = list(errors)

    def __call__(self, value):
        if self.errors:
            raise self.errors.pop(0)
        return value

    async def later(self, value):
        return self(value)


def test_waits_double_up_to_the_longest_and_last_as_long_as_the_error_asks_for():
    policy = RetryPolicy(first_s=0.1, longest_s=5.0)
    assert policy.wait_s(1, 0.0, 1.0) == pytest.approx(0.1)
    assert policy.wait_s(3, 0.0, 1.0) == pytest.approx(0.4)
    assert policy.wait_s(1, 0.5, 1.0) == pytest.approx(0.5)
    assert policy.wait_s(50, 0.5, 1.0) == 5.0
    assert policy.wait_s(10_000, 0.5, 0.0) == 2.5


def test_a_call_is_retried_until_it_returns_and_each_failure_is_reported():
    errors, reported = [RetryableError("one", 0.0), RetryableError("two", 0.0)], []
    assert QUICK.retrying(retryable, lambda *failure: reported.append(failure))(Failing(*errors), 7) == 7
    assert reported == [(errors[0], 1), (errors[1], 2)]


@pytest.mark.parametrize(
    ("policy", "error"), [(QUICK, ValueError("a bug")), (QUICK._replace(give_up_after_s=0.0), RetryableError("away", 0.0))]
)
def test_other_errors_and_the_last_one_are_raised_as_they_are(policy, error):
    reported = []
    with pytest.raises(type(error)) as raised:
        policy.retrying(retryable, lambda *failure: reported.append(failure))(Failing(error), 7)
    assert raised.value is error
    assert reported == []


def test_a_coroutine_waits_by_the_given_function_which_may_end_the_retries():
    class Stopped(Exception):
        pass

    waited = []

    async def pause(seconds):
        waited.append(seconds)
        if len(waited) > 1:
            raise Stopped

    failing = Failing(RetryableError("one", 0.0), RetryableError("two", 0.0))
    with pytest.raises(Stopped):
        asyncio.run(QUICK.retrying_async(retryable, None, pause)(failing.later, 7))
    assert len(waited) == 2
    assert all(0.0005 <= seconds <= 0.002 for seconds in waited)


def test_a_cancelled_coroutine_ends_at_once():
    async def cancelled():
        failing = Failing(*(RetryableError("away", 0.0) for _ in range(10_000)))
        task = asyncio.create_task(QUICK.retrying_async(retryable, None, asyncio.sleep)(failing.later, 7))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(failing.errors)

    assert asyncio.run(cancelled()) > 0

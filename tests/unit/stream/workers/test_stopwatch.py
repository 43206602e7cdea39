"""The stopwatch of a batch: each step has its own time, and an error has the innermost step that raised it."""

import pytest

from stream.workers.stopwatch import Stopwatch


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_an_inner_steps_time_is_not_part_of_the_outer_one():
    clock = Clock()
    steps = Stopwatch(clock)
    clock.now += 1
    with steps("merge"):
        clock.now += 2
        with steps("read"):
            clock.now += 4
        clock.now += 8
        with steps("write"):
            clock.now += 16
    with steps("merge"):
        clock.now += 32
    assert steps.seconds == {"merge": 42, "read": 4, "write": 16}
    assert steps.elapsed_s == 63


def test_an_error_has_the_innermost_step_that_raised_it():
    steps, error = Stopwatch(), ValueError("a test")
    with pytest.raises(ValueError, match="a test"), steps("merge"), steps("write"):
        raise error
    assert steps.step_of(error) == "write"
    assert set(steps.seconds) == {"merge", "write"}


def test_an_error_that_was_handled_is_not_taken_for_a_later_one():
    steps, later = Stopwatch(), ValueError("later")
    with steps("merge"):
        with pytest.raises(RuntimeError), steps("model"):
            raise RuntimeError
        with pytest.raises(ValueError, match="later"):
            raise later
    assert steps.step_of(later) == "other"

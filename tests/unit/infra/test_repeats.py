"""Log lines that repeat are few, and say how many there were."""

import logging

from infra.repeats import MOST_KINDS, Repeats


def record(message, *args, at=0.0, name="aiokafka", error=None):
    made = logging.LogRecord(name, logging.ERROR, "file.py", 1, message, args, (type(error), error, None) if error else None)
    made.created = at
    return made


def test_few_lines_of_a_kind_pass_and_the_next_says_how_many_did_not():
    repeats = Repeats(most=3)
    passed = [n for n in range(100) if repeats.filter(record("no connection to node %s", n, at=n / 2))]
    assert passed == [0, 1, 2]
    after = record("no connection to node %s", 7, at=60.0)
    assert repeats.filter(after)
    assert after.getMessage() == "no connection to node 7 (like 97 lines before, left out)"


def test_kinds_differ_by_logger_level_and_message_but_not_by_numbers():
    repeats = Repeats(most=1)
    assert repeats.filter(record("node 1 is away"))
    assert not repeats.filter(record("node 22 is away"))
    assert repeats.filter(record("node 1 is away", name="kafka"))
    assert repeats.filter(record("node 1 is back"))


def test_a_traceback_is_written_once():
    repeats = Repeats()
    first, second = record("failed", error=OSError("gone")), record("failed", error=OSError("gone"))
    assert repeats.filter(first)
    assert repeats.filter(second)
    assert first.exc_info is not None
    assert (second.exc_info, second.getMessage()) == (None, "failed: OSError('gone')")


def test_memory_is_bounded():
    repeats = Repeats()
    for n in range(3 * MOST_KINDS):
        repeats.filter(record("x" * (n % 190) + "y" * (n // 190)))
    assert len(repeats._windows) <= MOST_KINDS

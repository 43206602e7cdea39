"""What a pipeline sees of a batch: its records, and the steps through which it reports what it does.

A pipeline reads no clock: it enters `with steps("read"):` around a read, and the caller measures. All roles use the same names, so that
the times of a batch show where to look:

    decode    bytes into events or requests, and their validation         CPU
    read      one round trip to the online store                          store
    merge     events into rows; candidate lists into one                  CPU
    model     towers of the bundle                                        device
    search    the index                                                   CPU
    encode    vectors into codes and rows                                 CPU
    write     one round trip to the online store, guarded by log positions     store
    publish   records to the broker, until it has acknowledged them       broker
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

StepName = Literal["decode", "read", "merge", "model", "search", "encode", "write", "publish"]

Steps = Callable[[StepName], AbstractContextManager[None]]  # a context in which the step runs; an inner step's time is not the outer one's


def untimed(_: StepName) -> AbstractContextManager[None]:
    """Measures nothing."""
    return nullcontext()


class Record(Protocol):
    """The fields of a consumer record that a pipeline reads (aiokafka's and kafka-python's alike)."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

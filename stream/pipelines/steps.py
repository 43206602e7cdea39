"""The steps of a batch, by name, and the interface through which a pipeline reports which one runs.

A pipeline reads no clock: it enters `with steps("read"):` around a read, and the caller measures. The names are one vocabulary for
all roles, so that the time of a batch says where to look:

    decode    bytes into events or requests, and their validation         CPU
    read      one round trip to the online store                          store
    merge     events into rows; candidate lists into one                  CPU
    model     towers of the bundle                                        device
    search    the index                                                   CPU
    encode    vectors into codes and rows                                 CPU
    write     one round trip to the online store, guarded by versions     store
    publish   records to the broker, until it has acknowledged them       broker
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

StepName = Literal["decode", "read", "merge", "model", "search", "encode", "write", "publish"]

Steps = Callable[[StepName], AbstractContextManager[None]]  # a context in which the step runs; an inner step's time is not the outer one's


def untimed(_: StepName) -> AbstractContextManager[None]:
    """Measures nothing."""
    return nullcontext()

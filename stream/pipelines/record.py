"""A consumer record as pipelines see it."""

from collections.abc import Sequence
from typing import Protocol


class Record(Protocol):
    """What the pipeline reads of a consumer record (aiokafka's and kafka-python's alike)."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

"""The online store's interface: read many rows at once, write many rows at once, each guarded by its log position.

Adapters (redis, sqlite, memory) pass one contract suite (tests/contracts). Redis and SQLite write in Feast's own layout,
so that any Feast client reads what they wrote.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from features.quarantine import Quarantined

MOST_EPOCH = 999_999_999  # workers cannot be configured beyond it, so a stored log position with a later epoch is damaged


class LogPosition(NamedTuple):
    """How far the log is applied to a row: an epoch, and the next offset of each source topic of its partition.

    Epochs are compared first; within an epoch a position is older if ANY of its offsets is lower.
    """

    epoch: int = 0
    clicks: int = 0
    queries: int = 0
    orders: int = 0

    def older_than(self, other: "LogPosition") -> bool:
        """Whether a row of the other position must refuse a write of this one."""
        if self.epoch != other.epoch:
            return self.epoch < other.epoch
        return any(mine < theirs for mine, theirs in zip(self[1:], other[1:], strict=True))

    def raised(self, topic: str, offset: int) -> "LogPosition":
        """This position with the next offset of a topic ("clicks", "queries" or "orders") at least `offset`."""
        at = _PLACES[topic]
        return self if self[at] >= offset else LogPosition._make((*self[:at], offset, *self[at + 1 :]))


_PLACES = {topic: place for place, topic in enumerate(LogPosition._fields)}


class Key(NamedTuple):
    """A row's address: name of the view, values of its entities, in the order of features.table."""

    view: str
    entities: tuple[str, ...]


class Stored(NamedTuple):
    """A row as the store holds it: packed bytes, log position, event time of its newest event (ms).

    Of a damaged row, `packed` is refused by `features.codec.unpack`; a log position that cannot be read is `LogPosition()`.
    """

    packed: bytes
    log_position: LogPosition
    ts_ms: int


class OnlineStore(Protocol):
    """Stores rows. Thread-safe."""

    def read(self, keys: Sequence[Key]) -> list[Stored | None]:
        """The rows at the keys, in their order, None for a missing row; one round trip.

        Raises:
            StoreUnavailableError: the store did not answer.
        """
        ...

    def write(self, rows: Sequence[tuple[Key, Stored]]) -> list[bool]:
        """Write rows in one round trip; False for each that the store refused because it holds a newer log position.

        Each row is compared and written atomically. An equal log position overwrites, so repeating a write is harmless.

        Raises:
            StoreUnavailableError: the store did not answer; each row may or may not be written.
        """
        ...

    def quarantine(self, rows: Sequence[Quarantined]) -> None:
        """Quarantine unreadable rows, by their `id`; at most features.quarantine.MOST_ROWS are kept.

        Raises:
            StoreUnavailableError: the store did not answer.
        """
        ...

    def quarantined(self) -> list[Quarantined]:
        """All quarantined rows, oldest first.

        Raises:
            StoreUnavailableError: the store did not answer.
        """
        ...

    def release(self, ids: Collection[str]) -> None:
        """Delete rows from the quarantine.

        Raises:
            StoreUnavailableError: the store did not answer.
        """
        ...

    def close(self) -> None:
        """Close all connections."""
        ...

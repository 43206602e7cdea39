"""The progress of each partition (delivered, acknowledged, end of the log), and which ones make none. Pure and thread-safe."""

from collections.abc import Iterable
from threading import Lock

import msgspec

Partition = tuple[str, int]  # a topic and one of its partitions


class _Place(msgspec.Struct):
    """Offsets are those of the next record, as in Kafka: equal ones mean that nothing is left. None: not known yet."""

    moved_at: float  # s, monotonic
    fetched: int | None = None  # by the client
    delivered: int | None = None
    acked: int | None = None
    end: int | None = None  # of the log, by the broker

    @property
    def outstanding(self) -> bool:
        return self.delivered is not None and self.delivered != self.acked

    @property
    def unread(self) -> bool:
        return self.end is not None and (self.fetched is None or self.fetched < self.end)


class Progress:
    """What the watchdog knows of each partition. All times are seconds of one monotonic clock."""

    def __init__(self, stall_after_s: float) -> None:
        self._stall_after_s = stall_after_s
        self._places: dict[Partition, _Place] = {}
        self._rebalancing = True
        self._acked_at = float("-inf")
        self._lock = Lock()

    def assigned(self, partitions: Iterable[Partition], now: float) -> None:
        """Start over with these partitions: after a rebalance each is read from its committed offset."""
        with self._lock:
            self._places = {(topic, number): _Place(now) for topic, number in partitions}
            self._rebalancing = False

    def revoked(self) -> None:
        """Forget all partitions: they go to another worker, or come back soon."""
        with self._lock:
            self._places = {}
            self._rebalancing = True

    @property
    def rebalancing(self) -> bool:
        """Whether the assignment is open: no partitions were assigned yet, or the last ones were revoked."""
        return self._rebalancing

    def partitions(self) -> list[Partition]:
        """The partitions of this worker."""
        with self._lock:
            return sorted(self._places)

    def delivered(self, partition: Partition, upto: int, now: float) -> None:
        """Records below offset `upto` were delivered to the worker."""
        with self._lock:
            if (place := self._places.get(partition)) is not None:
                # Idle time before these records does not count as a stall.
                place.moved_at = now
                place.delivered = upto

    def acked(self, partition: Partition, upto: int, now: float) -> None:
        """Records below offset `upto` are acknowledged."""
        with self._lock:
            self._acked_at = now
            if (place := self._places.get(partition)) is not None:
                place.moved_at = now
                place.acked = upto

    def observed(self, partition: Partition, *, end: int, fetched: int | None, committed: int | None, now: float) -> None:
        """`end` of the log (from a second client), the offset up to which the reading client `fetched`, and the one committed before."""
        with self._lock:
            if (place := self._places.get(partition)) is not None:
                if not place.outstanding and (fetched != place.fetched or not place.unread):
                    place.moved_at = now
                place.end, place.fetched = end, fetched
                if place.acked is None and place.delivered is None:
                    place.acked = committed
                    place.delivered = committed

    def alive(self, now: float) -> None:
        """Part of a large batch is done, or it waits for a store or broker that does not answer: no partition is stalled."""
        with self._lock:
            for place in self._places.values():
                place.moved_at = now

    def stalled(self, now: float) -> list[Partition]:
        """Partitions with records to read or to finish that made no progress for `stall_after_s`.

        While batches of other partitions are acknowledged, a partition may be waiting for its turn: it gets 5 times as long.
        """
        with self._lock:
            busy = now - self._acked_at < self._stall_after_s and any(place.outstanding for place in self._places.values())
            patience_s = self._stall_after_s * (5 if busy else 1)
            return sorted(
                partition
                for partition, place in self._places.items()
                if (place.outstanding or place.unread) and now - place.moved_at >= patience_s
            )

    def lag(self) -> dict[Partition, int]:
        """Offsets between the acknowledged ones and the end of the log, by partition; those with an unknown end are left out."""
        with self._lock:
            return {partition: _lag(place) for partition, place in self._places.items() if place.end is not None}


def _lag(place: _Place) -> int:
    if not place.outstanding and not place.unread:
        return 0  # the offsets left are transaction markers, or were compacted
    return max(0, (place.end or 0) - (place.acked or 0))

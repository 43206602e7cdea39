"""What a worker reports while it runs. Metrics and readiness hang on these methods; stream knows neither.

Every worker adds the events of its own role in a protocol beside its class. Methods return at once, raise nothing, and may be called
from any thread.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from stream.kafka.progress import Partition

Part = Literal["store", "broker"]


class WorkerObserver(Protocol):
    """The events of every worker."""

    def assigned(self) -> None:
        """Partitions were assigned to this worker."""

    def batch(self, records: int, seconds: float, steps: Mapping[str, float]) -> None:
        """A batch was acknowledged: its number of records, its time in all and that of each of its steps, in seconds."""

    def retry(self, step: str, error: Exception) -> None:
        """This step failed and will be retried."""

    def unavailable(self, part: Part, step: str) -> None:
        """A batch cannot go on: in this step the store or the broker did not answer."""

    def recovered(self) -> None:
        """Store and broker answer again, or the batch that waited for them is another worker's now."""

    def dropped(self, topic: str) -> None:
        """A record for this topic (without the prefix) is too large for the broker and was not published."""

    def progress(self, lag: Mapping[Partition, int], stalled: Sequence[Partition]) -> None:
        """Records waiting in each partition of this worker, and the partitions that make no progress."""

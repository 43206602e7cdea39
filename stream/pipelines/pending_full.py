"""Who is owed a full answer: users whom a backlog got a short one. In memory only: whoever holds it hands it on before they end."""

from collections.abc import Collection, Sequence
from itertools import islice

from stream.kafka.messages import RefreshRequest
from stream.pipelines.refresh import coalesce


class PendingFullRefreshes:
    """The requests of those users, one each, and the partition of the topic `refresh` that each came from."""

    def __init__(self) -> None:
        self._requests: dict[str, tuple[int, RefreshRequest]] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, partition: int, request: RefreshRequest) -> None:
        """A full answer to this request, and to what its user is owed already, is owed."""
        _, old = self._requests.get(request.user_id, (partition, request))
        self._requests[request.user_id] = partition, coalesce([old, request])[0]

    def of(self, partitions: Collection[int], most: int) -> list[RefreshRequest]:
        """The first `most` requests of these partitions."""
        return list(islice((request for partition, request in self._requests.values() if partition in partitions), most))

    def of_others(self, partitions: Collection[int], most: int) -> list[RefreshRequest]:
        """The first `most` requests that are not of these partitions."""
        return list(islice((request for partition, request in self._requests.values() if partition not in partitions), most))

    def settled(self, requests: Sequence[RefreshRequest]) -> None:
        """These were answered or handed back; what was added since then stays."""
        for request in requests:
            if self._requests.get(request.user_id, (0, None))[1] is request:
                del self._requests[request.user_id]

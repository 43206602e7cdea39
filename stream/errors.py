"""Errors of streams: the broker, topics, the log, rows under two writers, and item codes.

EverlongError
    BrokerRefusedError           the broker is there and refuses; no retry helps
        NotAuthorizedError
    BrokerUnavailableError       no broker answered in time
    PartitionCountError          topics that do not fit each other
    StalledError, SupersededError   this worker must end, so that another one takes over
    NoSuchDeadLetterError, TruncatedDeadLetterError
    NoAnswerError, CodesRequestError   requests about item codes
    LeadershipLostError
    RetryableError
        PublishError, LogUnavailableError
"""

from collections.abc import Iterable

from features.errors import EverlongError, RetryableError


class BrokerRefusedError(EverlongError):
    """The broker is there and refuses; no retry helps. The sentence says why, and the remedy."""


class NotAuthorizedError(BrokerRefusedError):
    """The broker knows who we are, and does not allow the request."""


class BrokerUnavailableError(EverlongError):
    """No broker answered in time."""

    remedy = "check EVERLONG_KAFKA_BOOTSTRAP, the security settings and that the broker is up"

    def __init__(self, bootstrap: str, timeout_s: float, last: object) -> None:
        super().__init__(f"no Kafka broker answered at {bootstrap} within {timeout_s:.0f} s ({last})")


class PartitionCountError(EverlongError):
    """Topics that exist do not fit each other: one user's clicks, queries and orders would not meet in one partition."""

    remedy = (
        "set EVERLONG_PARTITIONS to that number if it is the same for all, else delete these topics or choose another "
        "EVERLONG_TOPIC_PREFIX, then replay the events"
    )

    def __init__(self, found: dict[str, int], wanted: int) -> None:
        listed = ", ".join(f"{name}: {partitions}" for name, partitions in sorted(found.items()))
        super().__init__(
            f"clicks, queries and orders must have the same number of partitions, but there are {listed} and {wanted} are wanted"
        )
        self.found, self.wanted = found, wanted


class StalledError(EverlongError):
    """Partitions did not move although records wait: the process must end, so that another one takes them over."""

    remedy = "the worker ends, so that a restart or another worker reads them from the last commit"

    def __init__(self, partitions: Iterable[str]) -> None:
        super().__init__(f"no progress on {', '.join(partitions)}")


class SupersededError(EverlongError):
    """Another writer holds a newer epoch, or goes on writing the same rows: this worker must stop and join again."""


class NoSuchDeadLetterError(EverlongError):
    """The topic holds no dead letter at that place."""


class TruncatedDeadLetterError(EverlongError):
    """A dead letter keeps only the beginning of its record: there is no event to send again."""

    remedy = "send the event again from where it came"

    def __init__(self, place: str, missing: int) -> None:
        super().__init__(f"the record of {place} was too long to be kept, {missing} bytes of it are missing")


class NoAnswerError(EverlongError):
    """No catalogue worker answered a request in time."""


class CodesRequestError(EverlongError):
    """A request about item codes that cannot be fulfilled as things are; the sentence says why."""


class LeadershipLostError(EverlongError):
    """This worker no longer manages item codes: what it began is left as it is, for the next refresh to retract."""

    def __init__(self) -> None:
        super().__init__("another catalogue worker manages item codes")


class PublishError(RetryableError):
    """The broker did not confirm all records. Some may have been written: publish all of them again."""

    remedy = "check EVERLONG_KAFKA_BOOTSTRAP and that the brokers are up"

    def __init__(self, what: str, retry_after_s: float = 0.5) -> None:
        super().__init__(f"the broker did not confirm: {what}", retry_after_s)


class LogUnavailableError(RetryableError):
    """The log could not be read. Nothing is lost: process the same records again."""

    remedy = "check EVERLONG_KAFKA_BOOTSTRAP and that the brokers are up"

    def __init__(self, what: str, retry_after_s: float = 0.5) -> None:
        super().__init__(f"the log could not be read to rebuild rows: {what}", retry_after_s)

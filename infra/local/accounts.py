"""The accounts of a run on this machine: every record sent must be among those that the workers report."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from features.codec import unpack
from features.errors import LayoutError
from features.events import Event, Item, Topic
from features.outcomes import CandidatesRow
from features.store import Key, OnlineStore
from features.table import USER, USER_CANDIDATES
from infra.scraping import Samples, scrape
from stream.kafka.connection import Connection
from stream.kafka.messages import DeadLetter
from stream.kafka.topics import DEAD_LETTERS, prefixed
from stream.pipelines.dead_letters import LetterFilter, read


class Balance(NamedTuple):
    """The accounts at one moment. `outcomes` counts records by topic and outcome; `dead` are dead letters of all topics."""

    sent: Mapping[str, int]
    outcomes: Mapping[str, Mapping[str, int]]
    dead: int
    samples: Samples

    @property
    def taken(self) -> int:
        """Records that were applied, dropped as duplicates, or became dead letters."""
        return self.dead + sum(found.get(outcome, 0) for found in self.outcomes.values() for outcome in ("applied", "duplicate"))

    @property
    def lag(self) -> int:
        """Records sent but not processed yet."""
        return sum(self.sent.values()) - self.taken


class Accounts:
    """Counts records sent per topic (without prefix), and reads their outcomes from the workers at `ports`."""

    def __init__(self, ports: Iterable[int]) -> None:
        self.sent: Counter[str] = Counter()
        self._ports = list(ports)

    def look(self) -> Balance:
        """The current accounts."""
        samples = scrape(self._ports)
        outcomes = {topic: samples.by("outcome", "everlong_events_total", topic=topic) for topic in self.sent}
        return Balance(dict(self.sent), outcomes, int(samples.total("everlong_dead_letters_total")), samples)


class Line(NamedTuple):
    """The account of one topic: sent must equal applied + duplicates + dead letters; redelivered records were already counted."""

    topic: str
    sent: int
    applied: int
    duplicate: int
    dead: int
    redelivered: int

    @property
    def adds_up(self) -> bool:
        """Whether sent records equal the sum of their outcomes."""
        return self.sent == self.applied + self.duplicate + self.dead


def close(standing: Balance, connection: Connection, prefix: str, since_ms: int) -> list[Line]:
    """The final account of each topic. Dead letters since `since_ms` (wall clock) are counted once each, under their source topic."""
    dead: Counter[str] = Counter(letter.topic.removeprefix(prefix) for letter in _letters(connection, prefix, since_ms))
    return [
        Line(topic, sent, found.get("applied", 0), found.get("duplicate", 0), dead[topic], found.get("redelivered", 0))
        for topic, sent in sorted(standing.sent.items())
        for found in [standing.outcomes.get(topic, {})]
    ]


def dead_of(standing: Balance, connection: Connection, prefix: str, since_ms: int) -> Counter[bytes]:
    """The number of dead letters per user (key) since `since_ms` (wall clock). The topic is read only if there are any."""
    if not standing.dead:
        return Counter()
    of_users = (letter for letter in _letters(connection, prefix, since_ms) if letter.topic.removeprefix(prefix) != Topic.ITEMS)
    return Counter(letter.key or b"" for letter in of_users)


def answerable(events: Iterable[Event], dead: Mapping[bytes, int]) -> list[str]:
    """The users with an event that is not a dead letter, ascending; `dead` counts dead letters by key."""
    sent = Counter(event.user_id for event in events if not isinstance(event, Item))
    return sorted(user for user, count in sent.items() if count > dead.get(user.encode(), 0))


def unanswered(store: OnlineStore, users: Sequence[str], at_once: int = 500) -> list[str]:
    """The users whose candidate set is missing, empty, or older than their rows."""
    behind = []
    for start in range(0, len(users), at_once):
        part = users[start : start + at_once]
        rows = store.read([Key(view.name, (user,)) for view in (USER, USER_CANDIDATES) for user in part])
        for user, row, answer in zip(part, rows[: len(part)], rows[len(part) :], strict=True):
            if row is None or answer is None or answer.log_position != row.log_position or not _candidates(answer.packed):
                behind.append(user)
    return behind


def _candidates(packed: bytes) -> int:
    """The number of candidates in a row; 0 if it cannot be read."""
    try:
        return len(unpack(CandidatesRow, packed).candidates)
    except LayoutError:
        return 0


def _letters(connection: Connection, prefix: str, since_ms: int) -> list[DeadLetter]:
    """The dead letters since `since_ms` (wall clock), one per source record."""
    found = (found.letter for found in read(connection, prefixed(prefix, DEAD_LETTERS), LetterFilter(since_ms=since_ms)))
    return list({(letter.topic, letter.partition, letter.offset): letter for letter in found}.values())

"""The accounts of a run on this machine: what was sent, and what the workers say became of it. Nothing may be missing."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from features.codec import LayoutError, unpack
from features.outcomes import CandidatesRow
from features.store import Key, OnlineStore
from features.table import USER, USER_CANDIDATES
from infra.scraping import Samples, scrape
from stream.connection import Connection
from stream.dead_letters import Wanted, read
from stream.topics import DEAD_LETTERS, prefixed


class Standing(NamedTuple):
    """The accounts at one moment. `outcomes` counts records by topic and outcome; `dead` are dead letters of all topics."""

    sent: Mapping[str, int]
    outcomes: Mapping[str, Mapping[str, int]]
    dead: int
    samples: Samples

    @property
    def taken(self) -> int:
        """Records that took effect, or were found to be duplicates or no events."""
        return self.dead + sum(found.get(outcome, 0) for found in self.outcomes.values() for outcome in ("applied", "duplicate"))

    @property
    def lag(self) -> int:
        """Records sent that no worker has dealt with yet."""
        return sum(self.sent.values()) - self.taken


class Accounts:
    """Counts what is sent to topics, named without prefix, and asks the workers at `ports` what became of it."""

    def __init__(self, ports: Iterable[int]) -> None:
        self.sent: Counter[str] = Counter()
        self._ports = list(ports)

    def look(self) -> Standing:
        """The accounts now."""
        samples = scrape(self._ports)
        outcomes = {topic: samples.by("outcome", "everlong_events_total", topic=topic) for topic in self.sent}
        return Standing(dict(self.sent), outcomes, int(samples.total("everlong_dead_letters_total")), samples)


class Line(NamedTuple):
    """The account of one topic: sent must be applied + duplicates + dead letters; redelivered ones were counted before."""

    topic: str
    sent: int
    applied: int
    duplicate: int
    dead: int
    redelivered: int

    @property
    def adds_up(self) -> bool:
        """Whether nothing is missing and nothing is too much."""
        return self.sent == self.applied + self.duplicate + self.dead


def close(standing: Standing, connection: Connection, prefix: str, since_ms: int) -> list[Line]:
    """The final account of each topic; dead letters are counted, each once, in their topic, from `since_ms` (wall clock) on."""
    dead: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for found in read(connection, prefixed(prefix, DEAD_LETTERS), Wanted(since_ms=since_ms)):
        dead[found.letter.topic.removeprefix(prefix)].add((found.letter.partition, found.letter.offset))
    return [
        Line(topic, sent, found.get("applied", 0), found.get("duplicate", 0), len(dead[topic]), found.get("redelivered", 0))
        for topic, sent in sorted(standing.sent.items())
        for found in [standing.outcomes.get(topic, {})]
    ]


def unanswered(store: OnlineStore, users: Sequence[str], at_once: int = 500) -> list[str]:
    """The users whose candidate set is missing, empty, or older than their rows."""
    behind = []
    for start in range(0, len(users), at_once):
        part = users[start : start + at_once]
        rows = store.read([Key(view.name, (user,)) for view in (USER, USER_CANDIDATES) for user in part])
        for user, row, answer in zip(part, rows[: len(part)], rows[len(part) :], strict=True):
            if row is None or answer is None or answer.version != row.version or not _candidates(answer.packed):
                behind.append(user)
    return behind


def _candidates(packed: bytes) -> int:
    """How many candidates a row holds; none where it cannot be read."""
    try:
        return len(unpack(CandidatesRow, packed).candidates)
    except LayoutError:
        return 0

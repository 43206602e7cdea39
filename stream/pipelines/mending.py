"""Unreadable rows made readable: rebuilt from the log where it reaches back, their bytes kept apart.

A damaged row is taken as empty, and all that the log holds of its user is merged once more: what the user's other rows hold already
changes nothing, so the result is the row of the events. Everything below the batch in flight is read, and all of the other two topics of
the partition, so the log positions of the new rows say exactly which events they hold.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from features.codec import pack
from features.events import Topic
from features.quarantine import Quarantined, Rebuilt
from features.store import Key, Stored
from features.table import USER
from stream.pipelines.batch import Record
from stream.pipelines.merging import ArrivedEvent, MergeStep, merge, newest, raised
from stream.pipelines.row_cache import CachedUser, Damaged

SOURCES = (Topic.CLICKS, Topic.QUERIES, Topic.ORDERS)


class History(NamedTuple):
    """Records of some keys in one partition of each topic: all that the log holds of them from `begins` to below `ends`."""

    records: Mapping[Topic, Sequence[Record]]
    begins: Mapping[Topic, int]
    ends: Mapping[Topic, int]

    def rebuilt(self, found: Sequence[ArrivedEvent]) -> Rebuilt:
        """How much of a row this history gives."""
        if self.begins and not any(self.begins.values()):
            return "complete"
        return "partial" if found else "none"


class Past(Protocol):
    """Reads the log again."""

    def read(self, partition: int, keys: Collection[bytes], upto: Mapping[Topic, int]) -> History:
        """The records with these keys in a partition of clicks, queries and orders; of a topic in `upto` those below that offset.

        Raises:
            LogUnavailableError: the broker did not answer.
        """
        ...


class NoPast:
    """There is no log: rows start empty."""

    def read(self, partition: int, keys: Collection[bytes], upto: Mapping[Topic, int]) -> History:
        """See `Past.read`."""
        return History({}, {}, {})


class Mended(NamedTuple):
    """A user's rebuilt rows: the merge of the batch in flight, all rows to write, and the quarantined ones."""

    step: MergeStep
    rows: dict[Key, Stored]
    apart: list[Quarantined]


def mend(
    user: str,
    cached: CachedUser,
    damaged: Sequence[Damaged],
    past: Sequence[ArrivedEvent],
    found: Sequence[ArrivedEvent],
    history: History,
    now_ms: int,
) -> Mended:
    """The rows of a user after the past and the batch in flight. `cached` holds the damaged rows as empty ones."""
    steps = [merge(user, cached, past)] if past else []
    steps.append(merge(user, steps[-1].state if steps else cached, found))
    rows = {key: stored for step in steps for key, stored in step.rows}
    state = steps[-1].state
    for key, *_ in damaged:  # also one that no event touches: it must become readable
        if key.view == USER.name:
            user_row, position = state.user
            rows[key] = Stored(pack(user_row), raised(position, history.ends), newest(user_row))
        else:
            row, position = state.categories[key.entities[1]]
            rows[key] = Stored(pack(row), raised(position, history.ends), row.events[-1].ts if row.events else 0)
    rebuilt = history.rebuilt(past)
    apart = [
        Quarantined(key.view, key.entities, reason, now_ms, rebuilt, (*stored.log_position,), stored.ts_ms, stored.packed)
        for key, stored, reason in damaged
    ]
    step = steps[-1]
    categories = sorted({category for one in steps for category in one.request.categories})
    return Mended(step._replace(request=msgspec.structs.replace(step.request, categories=categories)), rows, apart)

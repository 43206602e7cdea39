"""What may be trained on and what is held out: by time, or by users as ComiRec does (arXiv 2005.09347).

A basket, the events of a user that share a time stamp, is never split.
"""

from bisect import bisect_left
from collections.abc import Mapping
from datetime import UTC, datetime
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from features.history import Deeds
from features.rows import Behaviour
from models.errors import NothingToLearnError

SEEN_SHARE = 0.8  # of a test user's events infer, the rest are targets
TEST_SHARE = 0.1  # of the users are tested, as many are kept for choosing; nobody trains on either
LEAST_USERS = 3


class Split(NamedTuple):
    """`known` is all that training may see; `done` is everything, for what stood in a user's rows at a tested moment.

    `starts`: of each tested user the time (ms) from which on it is held out. `whole`: all of that is one target, as in
    ComiRec; else each basket is one. `cut_ms` lies above everything known.
    """

    name: str
    known: Mapping[str, Deeds]
    done: Mapping[str, Deeds]
    starts: Mapping[str, int]
    whole: bool
    cut_ms: int


def temporal(done: Mapping[str, Deeds], holdout: float = 0.1, cut_ms: int | None = None, since_ms: int = 0) -> Split:
    """What happened at or after the cut is held out: `cut_ms`, else the newest `holdout` share of events since `since_ms`; nothing for 0.

    Raises:
        NothingToLearnError: no event lies before the cut.
    """
    if cut_ms is None:
        cut_ms = _cut(done, holdout, since_ms)
    known = {user: before(deeds, cut_ms) for user, deeds in done.items()}
    known = {user: deeds for user, deeds in known.items() if deeds.events}
    if not known:
        cut = datetime.fromtimestamp(cut_ms / 1000, UTC)
        raise NothingToLearnError(f"no event is older than {cut}", "train on a longer history or move the cut (--cut)")
    starts = {user: cut_ms for user, deeds in done.items() if deeds.events and deeds.events[-1].ts >= cut_ms}
    return Split("temporal", known, done, starts, whole=False, cut_ms=cut_ms)


def validation(split: Split, share: float) -> Split:
    """What a temporal split may know, split again: its newest `share` of events is for choosing, the rest for learning.

    Raises:
        NothingToLearnError: no event lies before that.
    """
    return temporal(split.known, share)._replace(name="validation")


def by_users(done: Mapping[str, Deeds], seed: int) -> Split:
    """Of the users 80 % train, 10 % are kept for choosing and read by nobody, 10 % are tested, drawn by seed.

    Of a test user the first 80 % of events infer, the rest are the targets; one whose events are all one basket is left out.

    Raises:
        NothingToLearnError: there are fewer than three users, or no test user has two baskets.
    """
    users = sorted(user for user, deeds in done.items() if deeds.events)
    if len(users) < LEAST_USERS:
        raise NothingToLearnError(f"{len(users)} users cannot be split into training, choosing and test", "use --split temporal")
    drawn = [users[at] for at in np.random.default_rng(seed).permutation(len(users))]
    share = max(1, int(TEST_SHARE * len(users)))
    tested, trained = drawn[:share], drawn[2 * share :]
    known = {user: done[user] for user in sorted(trained)}
    starts = {user: start for user in sorted(tested) if (start := _boundary(done[user].events)) is not None}
    if not starts:
        raise NothingToLearnError("no test user has events at two different times", "use --split temporal, another --seed or more users")
    newest = max(deeds.events[-1].ts for deeds in known.values())
    return Split("users", known, done, starts, whole=True, cut_ms=newest + 1)


def before(deeds: Deeds, ts: int) -> Deeds:
    """What a user did and searched for before `ts` (ms)."""
    time = attrgetter("ts")
    return Deeds(deeds.events[: bisect_left(deeds.events, ts, key=time)], deeds.queries[: bisect_left(deeds.queries, ts, key=time)])


def _cut(done: Mapping[str, Deeds], holdout: float, since_ms: int) -> int:
    times = np.sort([event.ts for deeds in done.values() for event in deeds.events if event.ts >= since_ms])
    if not len(times):
        raise NothingToLearnError("there is no click and no order to learn from", "give a history with some")
    if holdout <= 0:
        return int(times[-1]) + 1
    cut = times[min(len(times) - 1, int(len(times) * (1 - holdout)))]
    later = times[times > times[0]]  # so that something lies before the cut, where there are two times at all
    return int(max(cut, later[0]) if len(later) else cut)


def _boundary(events: list[Behaviour]) -> int | None:
    """Time of the first basket held out, such that one is left before it; None where all is one basket."""
    at = min(len(events) - 1, int(SEEN_SHARE * len(events)))
    if events[at].ts > events[0].ts:
        return events[at].ts
    return next((event.ts for event in events if event.ts > events[0].ts), None)

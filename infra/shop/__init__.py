"""The simulated shop: users, items and queries generated from a seed, with a known ground truth.

Users have preferences over categories (partly lasting, partly changing every ten days) and a taste in each category; items have
latent vectors, which their titles and image vectors reveal with noise. So history predicts the next item better than popularity,
and `chances` gives the best possible prediction.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np

from features.event_time import DAY_MS, MINUTE_MS
from features.events import Click, Event, Item, Order, Query
from infra.shop.profile import profile
from infra.shop.visits import STAY, STAY_SEARCHED, Session, Visitor, draw
from infra.shop.world import Truth, World

__all__ = ["Shop", "Truth", "profile"]

_HISTORY, _LIVE = 10, 11
_GAP_MEDIAN_S, _GAP_SPREAD, _LONGEST_GAP_MS = 55.0, 1.36, 25 * MINUTE_MS
_BREAK_MS = 30 * MINUTE_MS  # the minimum time between two sessions
_EVENTS_A_SESSION = 7.2  # visits.MEAN_LENGTH, plus one per query, and orders


class Shop:
    """A shop of `users`, `items` and `categories`; users have `events_per_day` events on average.

    Ids are u0, u1, ... and i0, i1, ...; a category's id is its name. Two shops with the same arguments return the same
    events for the same calls; only `new_item` modifies a shop.
    """

    def __init__(self, seed: int = 0, users: int = 300, items: int = 2_000, categories: int = 40, events_per_day: float = 2.0) -> None:
        self._seed, self._events_per_day = seed, events_per_day
        self._world = World(seed, users, items, categories)

    @property
    def categories(self) -> list[str]:
        """The ids of the categories; axes of length N are in this order."""
        return list(self._world.names)

    def catalogue(self, ts: int) -> list[Item]:
        """All items as of `ts` (ms), without later ones."""
        return [msgspec.structs.replace(item, ts=ts) for item in self._world.items if item.ts <= ts]

    def new_item(self, ts: int, category: str | None = None) -> Item:
        """Add a new item, in `category` or in one drawn by demand; from now on users choose it like any other."""
        numbers = self._world.names
        number = numbers.index(category) if category else draw(np.random.default_rng([self._seed, ts]), self._world.demand)
        return self._world.add_item(number, ts)

    def history(self, start_ms: int, end_ms: int) -> list[Click | Query | Order]:
        """All events of [start_ms, end_ms), ascending by time; users start without a past."""
        total = self._events_per_day * self._world.users * (end_ms - start_ms) / DAY_MS
        events: list[Click | Query | Order] = []
        for user in range(self._world.users):
            rng = np.random.default_rng([self._seed, _HISTORY, user])
            visits = rng.poisson(self._world.activity[user] * total / _EVENTS_A_SESSION)
            events += _visit(Visitor(self._world, user), rng, np.sort(rng.integers(start_ms, end_ms, visits)), end_ms)
        return sorted(events, key=_by_time)

    def live(self, start_ms: int, rate: float, past: Iterable[Event] = ()) -> Iterator[Click | Query | Order]:
        """An endless stream of events from `start_ms` on, `rate` per second on average, of users with the events in `past`.

        About a third of the users, or as many as give one event per minute each, are in the shop at the same time.
        """
        rng = np.random.default_rng([self._seed, _LIVE, start_ms])
        visitors = self._visitors(past)
        ts = float(start_ms)
        crowd = int(np.clip(rate * 60, 1, max(self._world.users // 3, 1)))
        activity = self._world.activity.copy()
        inside: list[tuple[int, Session]] = []
        while True:
            ts += rng.exponential(1000 / rate)
            while len(inside) < crowd:
                user = draw(rng, activity / activity.sum())
                activity[user] = 0  # no user is in the shop twice
                inside.append((user, Session(visitors[user], rng, int(ts))))
            place = int(rng.integers(len(inside)))
            user, session = inside[place]
            yield session.step(int(ts))
            if session.done:
                inside.pop(place)
                activity[user] = self._world.activity[user]

    def truth(self, user: str, ts: int = 0) -> Truth:
        """A user's preferences at `ts` (ms): a distribution over `categories` and a taste in each."""
        return self._world.truth(int(user[1:]), ts)

    def chances(self, user: str, ts: int, past: Sequence[Event], category: str | None = None, text: str = "") -> np.ndarray:
        """The probability of each item (by its number, (items,)) to be the user's next click: the best possible prediction.

        `past`, ascending by time, are the user's events; `category` is that of the last one if it belongs to the same
        session, and `text` that of the query that is being followed, if any.
        """
        truth, visitor = self.truth(user, ts), self._visitors(past)[int(user[1:])]
        categories = truth.categories.copy()
        followed = self._world.names.index(category) if category else None
        if followed is not None:
            stay = STAY_SEARCHED if text else STAY
            if past and isinstance(past[-1], Query):
                stay = 1.0
            categories *= 1 - stay
            categories[followed] += stay
        chances = np.zeros(len(self._world.items))
        for number, share in enumerate(categories):
            words = frozenset(text.split()) if number == followed else frozenset()
            chances[self._world.members[number]] = share * visitor.chances(truth, number, words)
        return chances

    def _visitors(self, past: Iterable[Event]) -> list[Visitor]:
        visitors = [Visitor(self._world, user) for user in range(self._world.users)]
        for event in past:
            if isinstance(event, Click) and event.kind == "click":
                visitors[int(event.user_id[1:])].see(int(event.item_id[1:]))
        return visitors


def _visit(visitor: Visitor, rng: np.random.Generator, starts: np.ndarray, end_ms: int) -> Iterator[Click | Query | Order]:
    """The sessions of a user, one after the other, up to `end_ms`."""
    free_ms = 0
    for start in starts.tolist():
        ts = max(start, free_ms)
        session = Session(visitor, rng, ts)
        while not session.done:
            if ts >= end_ms:
                return
            yield session.step(ts)
            ts += min(int(rng.lognormal(np.log(_GAP_MEDIAN_S * 1000), _GAP_SPREAD)), _LONGEST_GAP_MS)
        free_ms = ts + _BREAK_MS


def _by_time(event: Click | Query | Order) -> tuple[int, str]:
    return event.ts, event.event_id

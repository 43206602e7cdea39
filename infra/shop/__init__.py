"""The simulated shop: users, items and queries that follow from a seed, and whose truth is known.

Users want categories (a part lasts, a part changes every ten days) and in each category a taste; items have latent
vectors that their titles and image vectors tell, with noise. So the next item can be foretold from history better than
from popularity, and `chances` says how well at best.
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
_BREAK_MS = 30 * MINUTE_MS  # the least time between two sessions
_EVENTS_A_SESSION = 7.2  # visits.MEAN_LENGTH, one more for each query, and orders


class Shop:
    """A shop of `users`, `items` and `categories`; the mean user makes `events_per_day` events.

    Ids are u0, u1, ... and i0, i1, ...; a category's id is its name. Two shops of the same arguments give the same
    events to the same calls; only `new_item` changes a shop.
    """

    def __init__(self, seed: int = 0, users: int = 300, items: int = 2_000, categories: int = 40, events_per_day: float = 2.0) -> None:
        self._seed, self._events_per_day = seed, events_per_day
        self._world = World(seed, users, items, categories)

    @property
    def categories(self) -> list[str]:
        """The ids of the categories; axes of length N are in this order."""
        return list(self._world.names)

    def catalogue(self, ts: int) -> list[Item]:
        """All items as they stand at `ts` (ms), without those that came later."""
        return [msgspec.structs.replace(item, ts=ts) for item in self._world.items if item.ts <= ts]

    def new_item(self, ts: int, category: str | None = None) -> Item:
        """A new item, in `category` or one drawn by demand, that users want from now on like any other."""
        numbers = self._world.names
        number = numbers.index(category) if category else draw(np.random.default_rng([self._seed, ts]), self._world.demand)
        return self._world.add_item(number, ts)

    def history(self, start_ms: int, end_ms: int) -> list[Click | Query | Order]:
        """All events of [start_ms, end_ms), ascending by time; every user begins afresh."""
        total = self._events_per_day * self._world.users * (end_ms - start_ms) / DAY_MS
        events: list[Click | Query | Order] = []
        for user in range(self._world.users):
            rng = np.random.default_rng([self._seed, _HISTORY, user])
            visits = rng.poisson(self._world.activity[user] * total / _EVENTS_A_SESSION)
            events += _visit(Visitor(self._world, user), rng, np.sort(rng.integers(start_ms, end_ms, visits)), end_ms)
        return sorted(events, key=_by_time)

    def live(self, start_ms: int, rate: float, past: Iterable[Event] = ()) -> Iterator[Click | Query | Order]:
        """Events without end from `start_ms` on, `rate` a second on average, of users who have done what is in `past`.

        About a third of the users, or as many as make an event a minute each, are in the shop at the same time.
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
                activity[user] = 0  # nobody is in the shop twice
                inside.append((user, Session(visitors[user], rng, int(ts))))
            place = int(rng.integers(len(inside)))
            user, session = inside[place]
            yield session.step(int(ts))
            if session.done:
                inside.pop(place)
                activity[user] = self._world.activity[user]

    def truth(self, user: str, ts: int = 0) -> Truth:
        """What a user wants at `ts` (ms): the distribution over `categories` and a taste in each."""
        return self._world.truth(int(user[1:]), ts)

    def chances(self, user: str, ts: int, past: Sequence[Event], category: str | None = None, text: str = "") -> np.ndarray:
        """The chance of each item (by its number, (items,)) to be the user's next click: the best forecast there can be.

        `past`, ascending by time, are the user's events; `category` is that of the last one where it belongs to the same
        session, and `text` that of the query where one is being followed.
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

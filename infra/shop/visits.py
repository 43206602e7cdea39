"""Behaviour of the simulated shop's users: sessions of queries, clicks, carts and orders, one event per step."""

from collections import defaultdict
from typing import Literal

import numpy as np

from features.events import Click, Order, OrderLine, Query
from infra.shop.world import Truth, World

MEAN_LENGTH = 6.0  # events per session
STAY = 0.2  # probability that the next event stays in the category, regardless of the user's interests
STAY_SEARCHED = 0.75  # the same, after the first click that follows a query
SEARCH = 0.25  # probability that a new category is reached by a query
SEEN_AGAIN = 0.12  # probability that a click returns to an item of the category that was seen before
SEEN_WEIGHT = 0.05  # factor on an item's probability as a new one once it was seen
WORD_WEIGHT = 1.2  # each word of the query in a title multiplies the item's probability by e to this
CART, FAVOURITE, BUY_CART = 0.075, 0.036, 0.4


class Visitor:
    """A user and their events so far."""

    def __init__(self, world: World, user: int) -> None:
        self.world, self.user, self.name = world, user, f"u{user}"
        self.seen: dict[int, dict[int, int]] = defaultdict(dict)  # category -> place in the category -> times
        self.events = 0
        self.sessions = 0

    def see(self, number: int) -> None:
        """Record a click on an item."""
        category, place = self.world.places[number]
        times = self.seen[category]
        times[place] = times.get(place, 0) + 1

    def chances(self, truth: Truth, category: int, words: frozenset[str] = frozenset()) -> np.ndarray:
        """The probability of each item of a category to be clicked next, (n,), after a query of `words`, if any."""
        wanted = self.world.wants(truth, category)
        if words:
            told = [len(words & self.world.words[number]) for number in self.world.members[category]]
            wanted *= np.exp(WORD_WEIGHT * np.array(told))
        times = self.seen.get(category)
        if not times:
            found: np.ndarray = wanted / wanted.sum()
            return found
        places = list(times)
        wanted[places] *= SEEN_WEIGHT
        chances: np.ndarray = (1 - SEEN_AGAIN) * wanted / wanted.sum()
        again = np.fromiter(times.values(), float)
        chances[places] += SEEN_AGAIN * again / again.sum()
        return chances


class Session:
    """A visit: `step(ts)` is its next event, until `done`."""

    def __init__(self, visitor: Visitor, rng: np.random.Generator, ts: int) -> None:
        self._visitor, self._rng = visitor, rng
        self._truth = visitor.world.truth(visitor.user, ts)
        self._left = int(rng.geometric(1 / MEAN_LENGTH))
        self._id = f"{visitor.name}-s{ts:x}-{visitor.sessions}"
        visitor.sessions += 1
        self._category: int | None = None
        self._query: tuple[str, frozenset[str]] | None = None
        self._searched = False  # the last event was the query
        self._next: tuple[Literal["cart", "favourite"], int] | None = None
        self._cart: list[int] = []
        self._buys = False

    @property
    def done(self) -> bool:
        """Whether the visit is over."""
        return self._left <= 0 and not self._buys

    def step(self, ts: int) -> Click | Query | Order:
        """The event at `ts`."""
        if self._left <= 0:
            self._buys = False
            return self._order(ts)
        self._left -= 1
        event = self._act(ts)
        self._buys = self._left == 0 and bool(self._cart) and self._rng.random() < BUY_CART
        return event

    def _act(self, ts: int) -> Click | Query:
        if self._next is not None:
            (kind, number), self._next = self._next, None
            return self._click(ts, number, kind)
        stay = (1.0 if self._searched else STAY_SEARCHED) if self._query else STAY
        self._searched = False
        if self._category is None or self._rng.random() >= stay:
            self._category, self._query = draw(self._rng, self._truth.categories), None
            if self._rng.random() < SEARCH:
                return self._search(ts)
        words = self._query[1] if self._query else frozenset()
        place = draw(self._rng, self._visitor.chances(self._truth, self._category, words))
        number = self._visitor.world.members[self._category][place]
        self._visitor.see(number)
        chance = self._rng.random()
        if chance < CART:
            self._next = "cart", number
        elif chance < CART + FAVOURITE:
            self._next = "favourite", number
        return self._click(ts, number, "click")

    def _click(self, ts: int, number: int, kind: Literal["click", "cart", "favourite"]) -> Click:
        item = self._visitor.world.items[number]
        if kind == "cart":
            self._cart.append(number)
        named = self._query is not None and self._rng.random() < 0.7
        return Click(
            event_id=self._event_id(ts),
            user_id=self._visitor.name,
            item_id=item.item_id,
            category_id=item.category_id,
            ts=ts,
            kind=kind,
            query_id=self._query[0] if self._query and named else None,
            session_id=self._id,
            position=int(self._rng.geometric(0.2)) if self._query else None,
        )

    def _search(self, ts: int) -> Query:
        assert self._category is not None
        place = draw(self._rng, self._visitor.chances(self._truth, self._category))
        item = self._visitor.world.items[self._visitor.world.members[self._category][place]]
        brand, first, second, *noun = item.title.lower().split()
        extra = (brand, first, second)[int(self._rng.integers(3))]
        shown = [extra, *noun] if self._rng.random() < 0.8 else noun
        identity = self._event_id(ts)
        self._query, self._searched = (identity, frozenset(shown)), True
        self._left += 1  # a query leads to at least one click
        return Query(event_id=identity, user_id=self._visitor.name, query_id=identity, text=" ".join(shown), ts=ts, session_id=self._id)

    def _order(self, ts: int) -> Order:
        items = [self._visitor.world.items[number] for number in dict.fromkeys(self._cart)]
        lines = [OrderLine(item_id=item.item_id, category_id=item.category_id, price=item.price) for item in items]
        identity = self._event_id(ts)
        return Order(event_id=identity, order_id=identity, user_id=self._visitor.name, ts=ts, lines=lines)

    def _event_id(self, ts: int) -> str:
        self._visitor.events += 1
        return f"{self._visitor.name}-{ts:x}-{self._visitor.events}"


def draw(rng: np.random.Generator, chances: np.ndarray) -> int:
    """An index, drawn with probabilities that sum to 1."""
    return min(int(np.searchsorted(np.cumsum(chances), rng.random(), side="right")), len(chances) - 1)

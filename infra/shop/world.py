"""The ground truth of the simulated shop: properties of items and preferences of users, all determined by the seed.

Axes: N categories, d latent dimension. An item has a unit vector (d,) and a popularity; a user has a taste (d,) in
each category, and a distribution over categories: partly lasting, partly changing every few days.
"""

from typing import NamedTuple

import numpy as np

from features.event_time import DAY_MS
from features.events import Item
from infra.shop.words import BRANDS, COLOURS, STYLES, category_name

LATENT_DIM = 8
IMAGE_DIM = 32
TASTE_WEIGHT = 6.0
DRIFT_DAYS = 10
DRIFT_SHARE = 0.3
_WORLD, _USER, _DRIFT = range(3)


class Truth(NamedTuple):
    """A user's preferences at a time: `categories` (N,) sums to 1, `tastes` (N, d) unit vectors."""

    categories: np.ndarray
    tastes: np.ndarray


class World:
    """Items by category and users by number. Only `add_item` modifies it."""

    def __init__(self, seed: int, users: int, items: int, categories: int) -> None:
        if min(users, categories) < 1 or items < categories:
            raise ValueError("a shop needs a user, a category, and an item in each category")
        self.seed, self.users, self.categories = seed, users, categories
        self._rng = np.random.default_rng([seed, _WORLD])
        self.names = [category_name(n) for n in range(categories)]
        self.demand = _normalised(1.0 / np.arange(1, categories + 1) ** 0.6)[self._rng.permutation(categories)]
        self._styles = _unit(self._rng.normal(size=(len(STYLES), LATENT_DIM)))
        self._image_of = self._rng.normal(size=(LATENT_DIM, IMAGE_DIM))
        self._price_level = self._rng.normal(3.5, 0.8, categories)
        self.members: list[list[int]] = [[] for _ in range(categories)]  # the items of each category, in order of addition
        self.places: list[tuple[int, int]] = []  # of each item: its category and its position among the members
        self.words: list[frozenset[str]] = []  # of each item: the words of its title, in lower case
        self._latents: list[list[np.ndarray]] = [[] for _ in range(categories)]
        self._appeals: list[list[float]] = [[] for _ in range(categories)]
        self._stacked: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._tastes: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.items: list[Item] = []
        sizes = self._rng.choice(categories, size=items - categories, p=self.demand)
        for category in [*range(categories), *sizes.tolist()]:
            self.add_item(category, 0)
        self.activity = _normalised(self._rng.lognormal(0.0, 0.8, users))  # (users,) share of all events

    def add_item(self, category: int, ts: int) -> Item:
        """Add a new item to a category; from now on users choose it like any other."""
        rng, number = self._rng, len(self.items)
        latent = _unit(rng.normal(size=LATENT_DIM))
        first, second = np.argsort(self._styles @ latent)[::-1][:2].tolist()
        brand, colour = BRANDS[int(rng.integers(len(BRANDS)))], COLOURS[int(rng.integers(len(COLOURS)))]
        price = round(float(np.exp(self._price_level[category] + rng.normal(0, 0.4))), 2)
        image = latent @ self._image_of + rng.normal(0, 0.5, IMAGE_DIM)
        item = Item(
            item_id=f"i{number}",
            category_id=self.names[category],
            title=f"{brand} {STYLES[first]} {STYLES[second]} {self.names[category].replace('-', ' ')}",
            ts=ts,
            attributes={"brand": brand, "colour": colour, "style": STYLES[first]},
            price=price,
            image_embedding=np.round(image, 3).tolist(),
        )
        self.items.append(item)
        self.places.append((category, len(self.members[category])))
        self.words.append(frozenset(item.title.lower().split()))
        self.members[category].append(number)
        self._latents[category].append(latent)
        self._appeals[category].append(float(rng.normal(0, 0.8)))
        self._stacked.pop(category, None)
        return item

    def latents(self, category: int) -> tuple[np.ndarray, np.ndarray]:
        """The items of a category, as `members` has them: vectors (n, d) and log popularity (n,)."""
        if category not in self._stacked:
            vectors = np.array(self._latents[category]).reshape(-1, LATENT_DIM)
            self._stacked[category] = vectors, np.array(self._appeals[category])
        return self._stacked[category]

    def truth(self, user: int, ts: int) -> Truth:
        """A user's preferences at `ts` (ms)."""
        if user not in self._tastes:
            self._tastes[user] = self._make_user(user)
        lasting, tastes = self._tastes[user]
        rng = np.random.default_rng([self.seed, _DRIFT, user, (ts + user * DAY_MS) // (DRIFT_DAYS * DAY_MS)])
        drifting = np.zeros(self.categories)
        drifting[rng.choice(self.categories, size=min(3, self.categories), replace=False, p=self.demand)] = 1
        return Truth((1 - DRIFT_SHARE) * lasting + DRIFT_SHARE * _normalised(drifting), tastes)

    def wants(self, truth: Truth, category: int) -> np.ndarray:
        """A user's preference for each item of a category, (n,), above 0, the highest 1."""
        vectors, appeal = self.latents(category)
        logits = TASTE_WEIGHT * (vectors @ truth.tastes[category]) + appeal
        found: np.ndarray = np.exp(logits - logits.max())
        return found

    def _make_user(self, user: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, _USER, user])
        favourites = rng.choice(self.categories, size=min(int(rng.integers(4, 24)), self.categories), replace=False, p=self.demand)
        lasting = np.zeros(self.categories)
        lasting[favourites] = rng.gamma(1.0, size=len(favourites)) + 0.1
        lasting = 0.85 * _normalised(lasting) + 0.15 * self.demand
        return lasting, _unit(0.7 * rng.normal(size=LATENT_DIM) + 0.7 * rng.normal(size=(self.categories, LATENT_DIM)))


def _unit(vectors: np.ndarray) -> np.ndarray:
    found: np.ndarray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return found


def _normalised(weights: np.ndarray) -> np.ndarray:
    found: np.ndarray = weights / weights.sum()
    return found

"""The refresh pipeline without Kafka: ingest and refresh over one store, with a real, tiny bundle."""

from typing import NamedTuple

import numpy as np

from features.codec import unpack
from features.errors import StoreUnavailableError
from features.events import Click, Order, OrderLine, Query, Topic, encode
from features.outcomes import InterestsRow
from features.store import Key
from features.store.memory import MemoryStore
from models.serving.recommender import Recommender
from models.serving.retriever import Options, Serving
from stream.kafka.messages import RefreshRequest
from stream.pipelines.ingest import Ingest
from stream.pipelines.refresh import Refresh, coalesce
from tests.tiny_bundle import quickly_trained

NOW = 1_700_000_000_000
CATEGORIES = {f"c{n}" for n in range(6)}


class Record(NamedTuple):
    offset: int
    key: bytes
    value: bytes
    topic: str = "clicks"
    headers: tuple = ()
    partition: int = 0
    timestamp: int = NOW


class Failing(MemoryStore):
    """Fails at each call whose number is among `at`."""

    def __init__(self):
        super().__init__()
        self.at, self.calls = set(), 0

    def _count(self):
        self.calls += 1
        if self.calls in self.at:
            raise StoreUnavailableError("a test")

    def read(self, keys):
        self._count()
        return super().read(keys)

    def write(self, rows):
        self._count()
        return super().write(rows)


def serving(seed=1):
    bundle = quickly_trained(seed)
    return Serving(Recommender(bundle), bundle.index())


class System:
    """Ingest and refresh over one store, as the two workers run them."""

    def __init__(self, store=None, **options):
        self.store = store or MemoryStore()
        self.serving = serving()
        self.refresh = Refresh(self.store, lambda: NOW + 7, Options(**{"top_k": 8, "candidates": 100} | options))
        self._ingest, self._offsets = Ingest(self.store, lambda: NOW), dict.fromkeys(Topic, 0)

    def happens(self, *events):
        """Ingest events; the requests that follow."""
        requests = []
        for event in events:
            topic = {Click: Topic.CLICKS, Query: Topic.QUERIES, Order: Topic.ORDERS}[type(event)]
            record = Record(self._offsets[topic], event.user_id.encode(), encode(event), topic)
            self._offsets[topic] += 1
            requests += self._ingest.process(topic, [record]).refreshes
        return requests

    def process(self, requests, behind=False):
        """Refresh the users of the requests. `computed` then names the category of each long interest that the model computed."""
        recommender, self.computed = self.serving.recommender, []
        long = recommender.long

        def counted(state, needed):
            self.computed += [category for _, category, _ in needed]
            return long(state, needed)

        recommender.long = counted
        try:
            return self.refresh.process(self.serving, coalesce(requests), behind)
        finally:
            del recommender.long

    def answer(self, requests, behind=False):
        """The only candidate set that a refresh publishes."""
        [(found, _)] = self.process(requests, behind).sets
        return found

    def row(self, kind, view, user="u"):
        [found] = self.store.read([Key(view, (user,))])
        return found and unpack(kind, found.packed)

    def interests(self, user="u"):
        row = self.row(InterestsRow, "user_interests", user)
        return dict(zip(row.categories, np.frombuffer(row.vectors, "<f4").reshape(-1, row.dim), strict=True))


def click(n, category="c1", user="u", ts=None, item=None):
    return Click(event_id=f"e{n}", user_id=user, item_id=item or f"i{category[1:]}-{n % 12}", category_id=category, ts=ts or NOW - 1000 + n)


def order(*items, user="u"):
    lines = [OrderLine(item_id=item, category_id=f"c{item[1]}") for item in items]
    return Order(event_id="o", order_id="o", user_id=user, ts=NOW - 500, lines=lines)


def lose_model(system):
    """From now on torch itself fails, as it does when the GPU is lost."""
    system.serving.recommender._vectors = system.serving.recommender._vectors[:, :3]


def request(user, *categories, **changed):
    fields = {"user_id": user, "categories": list(categories), "log_position": (0, 1, 0, 0), "event_ts": 5, "sent_ms": 6}
    return RefreshRequest(**fields | changed)

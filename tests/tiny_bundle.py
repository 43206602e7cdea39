"""A shop small enough to train on in seconds, and bundles trained on it."""

from functools import cache

import numpy as np

from features.events import Click, Item, Order, OrderLine, Query
from models.config import Config, PretrainingConfig
from models.training.train import train

MINUTE = 60_000
START_MS = 1_700_000_000_000  # for files that commands read: they refuse times before 1990 or beyond the retention
NO_PRETRAINING = PretrainingConfig(epochs=0)
CONFIG = Config().replace(
    dim=16,
    short=12,
    long=16,
    touched=8,
    buckets=256,
    attribute_buckets=256,
    subspaces=4,
    epochs=6,
    batch=64,
    per_user=30,
    test_per_user=2,
    pretraining=PretrainingConfig(epochs=1),
)
COLOURS = ("red", "green", "blue", "black")


def shop(users=30, categories=6, items=12, events=50, start_ms=0):
    """Users keep to two categories and, in each, to the items of one colour; they search for them now and then."""
    rng = np.random.default_rng(0)
    catalogue = [
        Item(
            item_id=f"i{c}-{n}",
            category_id=f"c{c}",
            title=f"{COLOURS[n % 4]} thing of {c}",
            ts=start_ms,
            image_embedding=[float(n % 4 == colour) for colour in range(4)],
        )
        for c in range(categories)
        for n in range(items)
    ]
    log = []
    for user in range(users):
        mine, colour, ts = rng.choice(categories, 2, replace=False), int(rng.integers(4)), start_ms
        for n in range(events):
            ts += int(rng.integers(1, 90)) * MINUTE
            category, item = int(rng.choice(mine)), colour + 4 * int(rng.integers(items // 4))
            what = {"item_id": f"i{category}-{item}", "category_id": f"c{category}"}
            if n % 7 == 3:
                text = f"{COLOURS[colour]} thing"
                log.append(Query(event_id=f"q{user}-{n}", user_id=f"u{user}", query_id=f"q{n}", text=text, ts=ts - MINUTE))
            if n % 10 == 9:
                lines = [OrderLine(**what)]
                log.append(Order(event_id=f"e{user}-{n}", order_id=f"o{n}", user_id=f"u{user}", ts=ts, lines=lines))
            else:
                log.append(Click(event_id=f"e{user}-{n}", user_id=f"u{user}", ts=ts, **what))
    return sorted(log, key=lambda event: event.ts), catalogue


@cache
def quickly_trained(seed):
    """A bundle of that seed that learnt little: for what does not depend on how well it recommends. Do not change it."""
    events, catalogue = shop(users=10, events=20)
    return train(events, catalogue, CONFIG.replace(epochs=1, holdout=0.0), seed=seed)

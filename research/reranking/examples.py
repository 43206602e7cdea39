"""What the reranker learns from: a target that could be found at its moment, and the history just before it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from features.events import Item
from features.history import Deeds, moments
from features.rows import UserRow
from models.encoding.inputs import Positions
from research.reranking.config import RerankConfig
from research.reranking.histories import Numbers, RerankHistories, encode, newest

CHUNK = 1024


class RerankExamples(NamedTuple):
    """E targets and the histories just before them."""

    histories: RerankHistories  # (M, L) of M moments
    moment: np.ndarray  # (E,) int64
    target: np.ndarray  # (E,) int64, position of the item
    category: np.ndarray  # (E,) int64

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All arrays, in a fixed order."""
        return (*self.histories, *self[1:])

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Each example once, shuffled."""
        order = rng.permutation(len(self.target))
        yield from (order[start : start + size] for start in range(0, len(order), size))


def first_seen(catalogue: Sequence[Item], done: Mapping[str, Deeds]) -> np.ndarray:
    """Since when (ms) each item of the catalogue is known, (V,) int64: its own time, or that of its first event."""
    first = {item.item_id: item.ts for item in catalogue}
    for deeds in done.values():
        for event in deeds.events:
            if event.item in first and event.ts < first[event.item]:
                first[event.item] = event.ts
    return np.array([first[item.item_id] for item in catalogue], np.int64)


def build(
    done: Mapping[str, Deeds], positions: Positions, since: np.ndarray, config: RerankConfig, until_ts: int, from_ts: int = 0
) -> RerankExamples:
    """Examples from the baskets from `from_ts` on, before `until_ts` (ms): their items that were known before, `since` (V,) ms.

    Without that, all targets could be found at their moment, as the catalogue is made of what was wanted until the cut. Serving
    is asked by users of whom many want what nobody wanted before, and own items would be held too low beside others.
    """
    numbers = Numbers(positions)
    parts: list[RerankHistories] = []
    users: list[UserRow] = []
    moment: list[int] = []
    target: list[int] = []
    category: list[int] = []
    read = []
    for count, at in enumerate(moments(dict(done), from_ts=from_ts, until_ts=until_ts, per_user=config.per_user)):
        chosen = list({event.item: event for event in at.basket}.values())[: config.per_basket]
        item, number, row = numbers.of([event.item for event in chosen], [event.category for event in chosen])
        known = (number >= 0) & (since[item.clip(max=len(since) - 1)] < at.ts)
        target += item[known].tolist()
        category += row[known].tolist()
        moment += [count] * int(known.sum())
        users.append(at.row)
        read.append(newest(at.row, at.categories, config.categories, config.length))
        if len(users) == CHUNK:
            parts.append(_stored(encode(users, read, numbers)))
            users, read = [], []
    parts.append(_stored(encode(users, read, numbers)))
    return RerankExamples(_joined(parts), *(np.array(column, np.int64) for column in (moment, target, category)))


def _stored(histories: RerankHistories) -> RerankHistories:
    kinds = (np.int32, np.int32, np.int32, np.int8, np.int8, np.float32)
    return RerankHistories(*(array.astype(kind) for array, kind in zip(histories, kinds, strict=True)))


def _joined(parts: Sequence[RerankHistories]) -> RerankHistories:
    width = max(part.kind.shape[1] for part in parts)
    return RerankHistories(
        *(np.concatenate([np.pad(a, ((0, 0), (0, width - a.shape[1]))) for a in arrays]) for arrays in zip(*parts, strict=True))
    )

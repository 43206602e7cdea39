"""The catalogue pipeline: item events become vectors and PQ codes, item rows, and messages for every refresh worker's index.

It knows no Kafka. Steps: 1 decode, 2 vectors of one bundle's generation and their codes, 3 one versioned write of the item
rows, then the agent: 4 publish codes and dead letters, 5 acknowledge. All steps may be repeated.

A row keeps the code under the bundle's own codebook, so that row and bundle say all there is to know; what is published is
the code under the codebook in use.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from features.availability import is_available
from features.codec import pack
from features.event_time import TimeRules
from features.events import Id, Item, Reason, Refusal, Topic, decode
from features.outcomes import ItemRow
from features.store import Key, OnlineStore, Stored, Version
from features.table import ITEM
from models.codes.codebook import Codebook
from models.recommender import Recommender
from stream.ingest import dead_letter
from stream.messages import DeadLetter, ItemCode
from stream.partitioning import misplaced
from stream.record import Record
from stream.sent import sent_ms
from stream.steps import Steps, untimed


class CatalogueOutcome(NamedTuple):
    """What a batch came to: codes by item (None: the item is gone), dead letters, and counts that add up to its records."""

    codes: list[tuple[str, ItemCode | None]]
    dead: list[DeadLetter]
    counts: Counter[str]


class News(NamedTuple):
    """The last word on an item in a batch: its offset, when it was sent (0: not said), the event; None for a tombstone."""

    offset: int
    sent_ms: int
    item: Item | None


class Catalogue:
    """Applies item events under the recommender that `current` gives at the time, and the codebook that `codebook` gives
    for a bundle's generation and its own codebook. `partitions`: how many the topic `items` has."""

    def __init__(
        self,
        store: OnlineStore,
        current: Callable[[], Recommender],
        clock_ms: Callable[[], int],
        rules: TimeRules | None = None,
        epoch: int = 0,
        codebook: Callable[[str, Codebook], Codebook] = lambda bundle, own: own,
        partitions: int = 1,
    ) -> None:
        self._store, self._current, self._clock_ms, self._codebook = store, current, clock_ms, codebook
        self._rules, self._epoch, self._partitions = rules or TimeRules(), epoch, partitions

    def process(self, records: Sequence[Record], steps: Steps = untimed) -> CatalogueOutcome:
        """Apply records of one partition of the topic `items`; of several of one item the last counts.

        A record without a value (a tombstone of the compacted topic) deletes the item of its key.

        Raises:
            StoreUnavailable: process the same records again.
        """
        with steps("decode"):
            news, dead = self._decode(records)  # 1
        with steps("encode"):
            rows, codes = self._encode(news, steps)  # 2
        with steps("write"):
            accepted = self._store.write(rows)  # 3
        newer = {key.entities[0] for (key, _), ok in zip(rows, accepted, strict=True) if not ok}
        counts = Counter(dead=len(dead), applied=len(records) - len(dead))
        return CatalogueOutcome([(item, code) for item, code in codes if item not in newer], dead, counts)

    def _decode(self, records: Sequence[Record]) -> tuple[dict[str, News], list[DeadLetter]]:
        tombstones = {n for n, record in enumerate(records) if record.value is None and record.key}
        valued = [n for n in range(len(records)) if n not in tombstones]
        decoded = decode(Topic.ITEMS, [records[n].value for n in valued], self._clock_ms(), self._rules)
        bad = [refusal._replace(position=valued[refusal.position]) for refusal in decoded.bad]
        events = {valued[position]: event for position, event in decoded.good}
        news: dict[str, News] = {}
        for n in sorted(events.keys() | tombstones):
            record, item = records[n], events.get(n)
            assert item is None or isinstance(item, Item)
            name = item.item_id if item else _item_id(record.key)
            if record.key != name.encode():
                bad.append(Refusal(n, Reason.WRONG_KEY, "the record's key is not the item's id: set it when producing"))
            elif (wrong := misplaced(record.key, record.partition, self._partitions)) is not None:
                bad.append(Refusal(n, Reason.WRONG_PARTITION, wrong))
            else:
                news[name] = News(record.offset, sent_ms(record.headers, 0) if item else 0, item)
        return news, [dead_letter(records[refusal.position], refusal) for refusal in sorted(bad)]

    def _encode(self, news: dict[str, News], steps: Steps) -> tuple[list[tuple[Key, Stored]], list[tuple[str, ItemCode | None]]]:
        recommender = self._current()
        alive = {name: (said, said.item) for name, said in news.items() if said.item is not None and not said.item.deleted}
        items = [item for _, item in alive.values()]
        with steps("model"):
            vectors = recommender.item_vectors(items)  # (n, d) float32
            parts = vectors if recommender.fused else recommender.item_parts(items)  # (n, D) float32: what codes stand for
        own = recommender.bundle.codebook
        used = self._codebook(recommender.generation, own)
        kept = own.encode(parts)  # (n, P) uint8
        published = kept if used is own else used.encode(parts)
        rows: list[tuple[Key, Stored]] = []
        codes: list[tuple[str, ItemCode | None]] = []
        for n, (name, (said, item)) in enumerate(alive.items()):
            row = ItemRow(
                category=item.category_id,
                title=item.title,
                price=item.price,
                vector=_bytes(vectors[n]),
                code=kept[n].tobytes(),
                generation=recommender.generation,
                ts=item.ts,
            )
            rows.append(self._row(name, said.offset, row))
            message = ItemCode(
                item_id=name,
                category_id=row.category,
                vector=row.vector,
                code=published[n].tobytes(),
                generation=row.generation,
                ts=row.ts,
                sent_ms=said.sent_ms,
                codebook=used.generation,
                price=item.price,
                available=is_available(item),
                parts=b"" if recommender.fused else _bytes(parts[n]),
            )
            codes.append((name, message))
        for name, said in news.items():
            if name not in alive:
                rows.append(self._row(name, said.offset, ItemRow(deleted=True, ts=said.item.ts if said.item else 0)))
                codes.append((name, None))
        return rows, codes

    def _row(self, item_id: str, offset: int, row: ItemRow) -> tuple[Key, Stored]:
        """The row; its version counts offsets of the topic `items`."""
        return Key(ITEM.name, (item_id,)), Stored(pack(row), Version(self._epoch, offset + 1), row.ts)


def _item_id(key: bytes | None) -> str:
    """The item that a key names; empty where it can be none's."""
    try:
        return msgspec.convert((key or b"").decode(), Id)
    except (UnicodeDecodeError, msgspec.ValidationError):
        return ""


def _bytes(vector: np.ndarray) -> bytes:
    return vector.astype("<f4").tobytes()

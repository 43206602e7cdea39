"""The catalogue pipeline: item events become vectors and PQ codes, item rows, and messages for every refresh worker's index.

It knows no Kafka. Steps: 1 decode, 2 read the rows, 3 choose the state of each item that counts (features.item_states) and encode it with
one bundle, 4 write the item rows, guarded by their log positions; then the worker: 5 publish codes, dead letters and states again,
6 acknowledge. All steps may be repeated.

Event time decides what a row holds, offsets decide who may write it: the row at an offset holds the state that counts among all
records up to there, so a write that lags behind the row is refused, and one that does not never brings back an older state.
The topic `items` is compacted: where an outdated state arrived last, the one that counts is published again, or it would be lost there.

A row keeps the code under the bundle's own codebook, so that row and bundle say all there is to know; what is published is
the code under the codebook in use.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import msgspec
import numpy as np

from features.availability import is_available
from features.codec import pack, unpack
from features.embeddings import Modality, given_embeddings, width_of
from features.errors import UnreadableRowError
from features.event_time import TimeRules
from features.events import Id, Item, Reason, Refusal, Topic, decode
from features.item_states import bare, item_of, same, state_of, winner
from features.outcomes import ItemRow
from features.quarantine import Quarantined
from features.store import Key, LogPosition, OnlineStore, Stored
from features.table import ITEM
from models.codes.codebook import Codebook
from models.serving.recommender import Recommender
from stream.kafka.messages import AGAIN_HEADER, DeadLetter, ItemCode, sent_ms
from stream.kafka.topics import misplaced
from stream.pipelines.batch import Record, Steps, untimed
from stream.pipelines.ingest import dead_letter

log = logging.getLogger(__name__)


class CatalogueOutcome(NamedTuple):
    """The result of a batch: codes by item (None: deleted), dead letters, states to publish to `items` again, and counts.

    The counts add up to the records: applied, dead, and `again` for those with AGAIN_HEADER. `outdated`: records of an older state.
    `ignored`: given embeddings that the bundle cannot use.
    """

    codes: list[tuple[str, ItemCode | None]]
    dead: list[DeadLetter]
    again: list[Item]
    counts: Counter[str]
    outdated: int
    ignored: Counter[Modality]


class ArrivedItem(NamedTuple):
    """A valid record: its offset, when it was sent (0: unknown), and its state."""

    offset: int
    sent_ms: int
    state: ItemRow


class Known(NamedTuple):
    """A row of the store and its log position."""

    row: ItemRow
    log_position: LogPosition


class Chosen(NamedTuple):
    """The current state of an item, the log position of its row, when it was sent, and whether it must be published again."""

    state: ItemRow
    log_position: LogPosition
    sent_ms: int
    again: bool


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
        self._logged: set[tuple[str, str]] = set()  # bundle and modality of embeddings that are ignored

    def process(self, records: Sequence[Record], steps: Steps = untimed) -> CatalogueOutcome:
        """Apply records of one partition of the topic `items`, in the order of their offsets.

        A record without a value (a tombstone of the compacted topic) deletes the item of its key, at the record's time stamp.

        Raises:
            StoreUnavailableError: process the same records again.
        """
        recommender = self._current()
        with steps("decode"):
            arrived, dead, ignored = self._decode(records, recommender)  # 1
        with steps("read"):
            rows = self._read(arrived)  # 2
        chosen, outdated = self._choose(arrived, rows, recommender.generation)  # 3
        with steps("encode"):
            written, codes = self._encode(chosen, recommender, steps)  # 3
        with steps("write"):
            accepted = self._store.write(written) if written else []  # 4
        refused = {key.entities[0] for (key, _), ok in zip(written, accepted, strict=True) if not ok}
        again = [item_of(item, state) for item, (state, _, _, say) in chosen.items() if say and item not in refused]
        counts = _counts(records, dead)
        return CatalogueOutcome([(item, code) for item, code in codes if item not in refused], dead, again, counts, outdated, ignored)

    def _decode(
        self, records: Sequence[Record], recommender: Recommender
    ) -> tuple[dict[str, list[ArrivedItem]], list[DeadLetter], Counter[Modality]]:
        """The valid records of each item, ascending by offset; dead letters; given embeddings that cannot be used."""
        now = self._clock_ms()
        tombstones = {n for n, record in enumerate(records) if record.value is None and record.key}
        valued = [n for n in range(len(records)) if n not in tombstones]
        decoded = decode(Topic.ITEMS, [records[n].value for n in valued], now, self._rules)
        bad = [refusal._replace(position=valued[refusal.position]) for refusal in decoded.bad]
        events = {valued[position]: event for position, event in decoded.good}
        arrived: dict[str, list[ArrivedItem]] = {}
        ignored: Counter[Modality] = Counter()
        for n in sorted(events.keys() | tombstones):
            record, item = records[n], events.get(n)
            assert item is None or isinstance(item, Item)
            name = item.item_id if item else _item_id(record.key)
            if record.key != name.encode():
                bad.append(Refusal(n, Reason.WRONG_KEY, "the record's key is not the item's id: set it when producing"))
            elif (wrong := misplaced(record.key, record.partition, self._partitions)) is not None:
                bad.append(Refusal(n, Reason.WRONG_PARTITION, wrong))
            elif item is not None:
                ignored.update(self._ignored(item, recommender))
                arrived.setdefault(name, []).append(ArrivedItem(record.offset, sent_ms(record.headers, 0), state_of(item)))
            elif (late := self._rules.refuse(record.timestamp, now)) is not None:
                bad.append(Refusal(n, Reason(late[0]), f"a deletion without a value takes place at its record's {late[1]}"))
            else:
                arrived.setdefault(name, []).append(ArrivedItem(record.offset, 0, ItemRow(deleted=True, ts=record.timestamp)))
        return arrived, [dead_letter(records[refusal.position], refusal) for refusal in sorted(bad)], ignored

    def _ignored(self, item: Item, recommender: Recommender) -> list[Modality]:
        """The modalities of which the bundle cannot use the embedding that an item brings; the first of a bundle is logged."""
        widths = recommender.bundle.manifest.widths._asdict()
        found = [(modality, width_of(vector)) for modality, vector in given_embeddings(item).items()]
        wrong = [(modality, width) for modality, width in found if width != widths[modality]]
        for modality, width in wrong:
            if (recommender.generation, modality) not in self._logged:
                self._logged.add((recommender.generation, modality))
                log.warning(
                    "the %s embedding of item %r is ignored: %s, bundle %s uses %d; more of them are only counted",
                    modality,
                    item.item_id,
                    f"it has {width} numbers" if width else "it is empty, all zeros, or beyond float32",
                    recommender.generation,
                    widths[modality],
                )
        return [modality for modality, _ in wrong]

    def _read(self, items: Collection[str]) -> list[Known | None]:
        """The rows of items. A damaged row is quarantined and counts as missing: it is rebuilt from the records.

        Raises:
            features.codec.OtherLayoutError: another version of Everlong wrote a row.
        """
        known: list[Known | None] = []
        for item, found in zip(items, self._store.read([_key(item) for item in items]) if items else [], strict=True):
            try:
                known.append(None if found is None else Known(unpack(ItemRow, found.packed), found.log_position))
            except UnreadableRowError as error:
                assert found is not None
                log.error("the row of item %r is quarantined and rebuilt from the topic: %s", item, error)
                position, why = (*found.log_position,), str(error)
                kept = Quarantined(ITEM.name, (item,), why, self._clock_ms(), "partial", position, found.ts_ms, found.packed)
                self._store.quarantine([kept])
                known.append(None)
        return known

    def _choose(
        self, arrived: Mapping[str, list[ArrivedItem]], rows: Sequence[Known | None], generation: str
    ) -> tuple[dict[str, Chosen], int]:
        """What to write per item: nothing if its row is ahead and of this bundle. Also the number of outdated records."""
        chosen: dict[str, Chosen] = {}
        outdated = 0
        for (item, mine), known in zip(arrived.items(), rows, strict=True):
            best = reduce(lambda one, other: one if winner(one.state, other.state) is one.state else other, mine)
            state, sent = best.state, best.sent_ms
            if known is not None and winner(state, bare(known.row)) is not state:
                state, sent = bare(known.row), 0
            outdated += sum(not same(record.state, state) for record in mine)
            last = mine[-1]
            at = known.log_position if known is not None and known.log_position.epoch == self._epoch else LogPosition(self._epoch)
            position = at.raised("clicks", last.offset + 1)
            if position.clicks == last.offset + 1:
                chosen[item] = Chosen(state, position, sent, again=not same(last.state, state))
            elif known is not None and not known.row.deleted and known.row.generation != generation:
                chosen[item] = Chosen(state, position, 0, again=False)
        return chosen, outdated

    def _encode(
        self, chosen: Mapping[str, Chosen], recommender: Recommender, steps: Steps
    ) -> tuple[list[tuple[Key, Stored]], list[tuple[str, ItemCode | None]]]:
        alive = {name: item_of(name, found.state) for name, found in chosen.items() if not found.state.deleted}
        items = list(alive.values())
        with steps("model"):
            vectors = recommender.item_vectors(items)  # (n, d) float32
            parts = vectors if recommender.fused else recommender.item_parts(items)  # (n, D) float32: what codes stand for
        own = recommender.bundle.codebook
        used = self._codebook(recommender.generation, own)
        kept = own.encode(parts)  # (n, P) uint8
        published = kept if used is own else used.encode(parts)
        rows: list[tuple[Key, Stored]] = []
        codes: list[tuple[str, ItemCode | None]] = []
        for n, (name, item) in enumerate(alive.items()):
            state = chosen[name].state
            row = msgspec.structs.replace(state, vector=_bytes(vectors[n]), code=kept[n].tobytes(), generation=recommender.generation)
            rows.append(_stored(name, row, chosen[name].log_position))
            message = ItemCode(
                item_id=name,
                category_id=row.category,
                vector=row.vector,
                code=published[n].tobytes(),
                bundle=row.generation,
                ts=row.ts,
                sent_ms=chosen[name].sent_ms,
                codebook=used.generation,
                price=row.price,
                available=is_available(item),
                parts=b"" if recommender.fused else _bytes(parts[n]),
            )
            codes.append((name, message))
        for name, found in chosen.items():
            if name not in alive:
                rows.append(_stored(name, found.state, found.log_position))
                codes.append((name, None))
        return rows, codes


def _counts(records: Sequence[Record], dead: Sequence[DeadLetter]) -> Counter[str]:
    refused = {letter.offset for letter in dead}
    good = [record for record in records if record.offset not in refused]
    again = sum(AGAIN_HEADER in (record.headers or ()) for record in good)
    return Counter({"applied": len(good) - again, "dead": len(dead)} | ({"again": again} if again else {}))


def _key(item_id: str) -> Key:
    return Key(ITEM.name, (item_id,))


def _stored(item_id: str, row: ItemRow, position: LogPosition) -> tuple[Key, Stored]:
    """The row; its log position counts offsets of the topic `items`."""
    return _key(item_id), Stored(pack(row), position, row.ts)


def _item_id(key: bytes | None) -> str:
    """The item id in a key; empty if it is invalid."""
    try:
        return msgspec.convert((key or b"").decode(), Id)
    except (UnicodeDecodeError, msgspec.ValidationError):
        return ""


def _bytes(vector: np.ndarray) -> bytes:
    return vector.astype("<f4").tobytes()

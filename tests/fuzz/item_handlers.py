"""The catalogue, an index and the registry of codebooks with hostile records: the good items beside them stay as they are."""

from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
import numpy as np

from features.codec import unpack
from features.events import Item, encode
from features.outcomes import ItemRow
from features.store import Key
from features.store.memory import MemoryStore
from models.bundle import save
from models.serving.recommender import Recommender
from stream.codes.catalogue_snapshot import CatalogueSnapshot
from stream.codes.codebook_registry import CodebookRegistry, key_of, next_step
from stream.codes.readers import decode_codes
from stream.kafka.messages import RECODE, Skipped, Skips
from stream.pipelines.catalogue import Catalogue
from stream.serving.live_index import LiveIndex
from tests.live_index import NOBODY, OFFSETS, Told, announced, apply_record, check, code, codebook, follow, named, recodes, say
from tests.tiny_bundle import quickly_trained

NOW = 1_700_000_000_000
BUNDLE = quickly_trained(1)
GOOD = [Item(item_id=name, category_id="c1", title="red thing", ts=NOW) for name in ("good", "better")]
SENT = code("u")
CODEBOOKS = [announced(1), announced(1, begins={0: 0}, ends={0: 0}), named(1, 0, NOW)]


class Record(NamedTuple):
    key: bytes | None
    value: bytes | None
    offset: int = 0
    topic: str = "items"
    partition: int = 0
    timestamp: int = NOW
    headers: tuple[tuple[str, bytes], ...] = ()


@cache
def _recommender() -> Recommender:
    return Recommender(BUNDLE)


def catalogue_record(value: bytes) -> None:
    """A hostile value between two good items of one list."""
    store = MemoryStore()
    records = [Record(b"good", encode(GOOD[0])), Record(b"u", value, 1), Record(b"better", encode(GOOD[1]), 2)]
    outcome = Catalogue(store, _recommender, lambda: NOW).process(records)
    assert outcome.counts.total() == 3
    for item, row in zip(GOOD, store.read([Key("item", (item.item_id,)) for item in GOOD]), strict=True):
        assert row is not None
        assert unpack(ItemRow, row.packed).title == item.title


_names = count()


@cache
def _live() -> LiveIndex:
    """An index that gathers the codes of an announced codebook."""
    registry = CodebookRegistry()
    apply_record(registry, announced(1))
    with TemporaryDirectory() as folder:
        save(BUNDLE, Path(folder))
        live = LiveIndex(Path(folder), "cpu", NOBODY, "item-codes", registry, Told())
    say(live, ("u", SENT))
    follow(live)
    return live


def item_code(value: bytes) -> None:
    """A hostile value under the key of an item, and as a code alone, then a good item: the index takes that, and so does the catalogue."""
    live = _live()
    catalogue = CatalogueSnapshot(BUNDLE.generation, BUNDLE.codebook, live.index.dim)
    good = f"good{next(_names) % 50}"
    records = [Record(b"u", value), Record(RECODE + b"u", value), Record(good.encode(), msgspec.json.encode(code(good)))]
    found = decode_codes(records, Skips())
    for reader in (live, catalogue):
        reader.apply(found, OFFSETS)
    assert catalogue.codes_of([good]) is not None
    view = live.index.look()
    assert (view.numbers([good]) >= 0).all()
    assert np.isfinite(view.vectors(view.everything())).all()
    check(live)


def codebook_record(value: bytes) -> None:
    """A hostile value under every key of the topic, then a good codebook: it is taken, and an index comes to rest."""
    registry = CodebookRegistry()
    registry.expect(BUNDLE.generation, BUNDLE.codebook)
    generation = codebook(1).generation
    for kind in ("codebook", "current", "drift"):
        for name in (generation, BUNDLE.generation, "x"):
            registry.apply_record(f"{kind}:{name}".encode(), value)
    for key in (b"request", b"answer", b"", None, b"\xff"):
        registry.apply_record(key, value)
    for record in CODEBOOKS:
        assert not isinstance(registry.apply_record(key_of(record), msgspec.json.encode(record)), Skipped)
    assert registry.used(BUNDLE.generation, BUNDLE.codebook).generation == generation
    own = BUNDLE.codebook.generation
    next_step(registry, BUNDLE.generation, own, {own}, own, lambda _: True)


def seeds() -> list[bytes]:
    """An item's code, and a code alone of the announced codebook."""
    return [msgspec.json.encode(said) for said in (SENT, recodes(1, _live(), ["u"])[0][1])]

"""A bundle whose codes stand for several vectors of an item side by side: they go all the way from the item's event to the index."""

import numpy as np
import pytest

from features.events import Item, encode
from features.store.memory import MemoryStore
from models.bundle import save
from models.codes.codebook import Codebook
from models.codes.drift import Policy
from models.codes.reservoir import Reservoir
from models.serving.recommender import Recommender
from models.training.train import train
from stream.codes.catalogue_snapshot import CatalogueSnapshot
from stream.codes.code_manager import CodeManager
from stream.codes.codebook_registry import CodebookRegistry
from stream.codes.readers import CodeRecord
from stream.pipelines.catalogue import Catalogue
from stream.serving.live_index import LiveIndex
from tests.code_manager_world import PACE, TOPICS, World
from tests.live_index import NOBODY, Told
from tests.tiny_bundle import CONFIG, shop

NOW = 1_700_000_000_000


class Record:
    """An item's event as it comes from the topic."""

    topic, partition, headers, timestamp = "items", 0, (), NOW

    def __init__(self, offset, item):
        self.offset, self.key, self.value = offset, item.item_id.encode(), encode(item)


@pytest.fixture(scope="module")
def bundle():
    events, catalogue = shop(users=10, events=20)
    return train(events, catalogue, CONFIG.replace(epochs=1, holdout=0.0, coded=("id", "text")), seed=1)


def published(bundle, used):
    """What the catalogue says of two items, a changed and a new one."""
    recommender = Recommender(bundle)
    items = [Item(item_id=name, category_id="c1", title="red thing", ts=NOW - 5, price=2.5) for name in ("i1-1", "new")]
    catalogue = Catalogue(MemoryStore(), lambda: recommender, lambda: NOW, codebook=lambda generation, own: used)
    outcome = catalogue.process([Record(offset, item) for offset, item in enumerate(items)])
    return [CodeRecord(name, code) for name, code in outcome.codes], recommender.item_parts(items)


def test_parts_reach_the_index_and_every_generation_is_made_of_them(bundle, tmp_path):
    records, parts = published(bundle, bundle.codebook)
    assert [np.frombuffer(record.value.parts, "<f4").shape for record in records] == [(2 * bundle.manifest.dim,)] * 2
    live = LiveIndex(save(bundle, tmp_path / "bundle"), "cpu", NOBODY, "item-codes", CodebookRegistry(), Told())
    live.apply(records, {0: 2})
    view = live.index.look()
    np.testing.assert_array_equal(view.codes(view.numbers(["i1-1", "new"])), bundle.codebook.encode(parts))
    other = Codebook.from_centroids(bundle.codebook.centroids * np.float32(2))
    live.index.hold(other)
    live.index.serve(other.generation)
    view = live.index.look()
    np.testing.assert_array_equal(view.codes(view.numbers(["i1-1", "new"])), other.encode(parts))


def test_the_catalogue_encodes_under_the_codebook_in_use_and_the_row_under_the_bundles_own(bundle):
    other = Codebook.from_centroids(bundle.codebook.centroids * np.float32(2))
    records, parts = published(bundle, other)
    assert {record.value.codebook for record in records} == {other.generation}
    assert [record.value.code for record in records] == [code.tobytes() for code in other.encode(parts)]


def test_the_keeper_refreshes_codes_of_parts(bundle):
    world, table = World(), bundle.items
    catalogue, reservoir = CatalogueSnapshot(bundle.generation, bundle.codebook, bundle.manifest.dim), Reservoir(1000)
    catalogue.load_table(table.ids, table.vectors, table.codes, table.parts)
    reservoir.put(table.ids, table.parts)
    manager = CodeManager(
        catalogue, bundle.codebook, world.registry, world, TOPICS, lambda: next(world.clock), reservoir=reservoir, policy=Policy(),
        pace=PACE,
    )  # fmt: skip
    records, parts = published(bundle, bundle.codebook)
    manager.apply(records, {0: 2})
    world.ask(how="warm")
    manager.tick(0.0)
    used = world.registry.used(bundle.generation, bundle.codebook)
    assert used.dim == 2 * bundle.manifest.dim
    codes = {recode.item_id: recode.code for recode in world.recodes()}
    old = bundle.codebook.encode(parts[1:])[0].tobytes()
    assert codes.get("new", old) == used.encode(parts[1:])[0].tobytes()

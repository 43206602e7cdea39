"""Training on a tiny shop, the bundle's round trip and each of its refusals, and inference at the edges."""

import shutil

import msgspec
import numpy as np
import pytest

from features.events import Click, Item, Order
from features.history import Timeline, deeds
from features.rows import Behaviour, CategoryRow, Search, Touched, UserRow
from models.bundle import FILES, MANIFEST, load, save
from models.errors import BundleError, NothingToLearnError
from models.serving.recommender import Recommender
from models.training.train import train
from tests.tiny_bundle import CONFIG, MINUTE, shop

AGAIN = CONFIG.replace(exclude_bought=False)  # its users buy the same items again, but are too few to choose by


@pytest.fixture(scope="module")
def trained():
    events, catalogue = shop()
    told = []
    bundle = train(events, catalogue, AGAIN, seed=1, progress=told.append, data="tiny shop", created="2026-01-01T00:00:00Z")
    assert told[-2].step == told[-2].steps
    return bundle


@pytest.fixture
def directory(trained, tmp_path):
    return save(trained, tmp_path / "bundle")


def test_it_learns_what_popularity_does_not_know(trained):
    metrics = trained.manifest.metrics
    assert metrics["gated"]["hit@1"] > 0.3
    assert metrics["cascade"]["hr@20"] > metrics["most popular"]["hr@20"] + 0.2
    assert metrics["cascade"]["hr@20_low"] <= metrics["cascade"]["hr@20"] <= metrics["cascade"]["hr@20_high"]


def test_the_same_seed_gives_the_same_bundle(trained):
    events, catalogue = shop()
    again = train(events[::-1], catalogue[::-1], AGAIN, seed=1, data="tiny shop")
    assert again.generation == trained.generation
    assert again.manifest.metrics == trained.manifest.metrics
    other = train(events, catalogue, AGAIN.replace(epochs=1), seed=2)
    assert other.generation != trained.generation


def test_a_bundle_read_back_is_the_one_written(trained, directory):
    back = load(directory)
    assert back.generation == trained.generation
    assert msgspec.structs.replace(back.manifest, files={}) == msgspec.structs.replace(trained.manifest, files={})
    assert list(back.items.ids) == list(trained.items.ids)
    np.testing.assert_array_equal(back.items.vectors, trained.items.vectors)
    np.testing.assert_array_equal(back.items.codes, back.codebook.encode(back.items.vectors))
    assert back.codebook.generation == trained.codebook.generation
    assert back.popular == trained.popular
    assert len(back.index()) == len(trained.items.ids)
    users = [row_of("u0"), UserRow()]
    one, other = Recommender(trained), Recommender(back)
    np.testing.assert_array_equal(one.short(users).vectors, other.short(users).vectors)
    assert one.categories(users, one.short(users), 3) == other.categories(users, other.short(users), 3)


def test_saving_again_replaces_the_whole_directory_and_leaves_nothing_beside_it(trained, directory):
    (directory / "stray").write_text("of the old one")
    save(trained, directory)
    assert {path.name for path in directory.iterdir()} == {*FILES, MANIFEST}
    assert [path.name for path in directory.parent.iterdir()] == ["bundle"]


def change(directory, **fields):
    manifest = msgspec.json.decode((directory / MANIFEST).read_bytes())
    (directory / MANIFEST).write_bytes(msgspec.json.encode(manifest | fields))


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_refused_by_name(directory, name):
    (directory / name).unlink()
    with pytest.raises(BundleError, match=name):
        load(directory)


@pytest.mark.parametrize("name", FILES)
def test_a_tampered_file_is_refused_with_both_checksums(directory, name):
    content = bytearray((directory / name).read_bytes())
    content[-1] ^= 1
    (directory / name).write_bytes(content)
    with pytest.raises(BundleError, match="copy the bundle again") as refusal:
        load(directory)
    assert refusal.value.found != refusal.value.expected


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"schema": "0" * 16}, "schema"),
        ({"format": 99}, "format"),
        ({"format": 2}, "format"),
        ({"dim": 8}, "dimension of item vectors"),
        ({"subspaces": 2}, "shape of codes"),
        ({"codebook": "other"}, "codebook"),
        ({"categories": 1}, "number of categories"),
        ({"widths": [5, 1]}, "weights"),
        ({"seed": "three"}, "manifest"),
    ],
)
def test_another_schema_or_dimension_is_refused_with_both_values_and_the_remedy(directory, fields, what):
    change(directory, **fields)
    with pytest.raises(BundleError) as refusal:
        load(directory)
    assert refusal.value.part == what
    assert str(refusal.value.found) in str(refusal.value)
    assert str(refusal.value.expected) in str(refusal.value)
    assert refusal.value.remedy in str(refusal.value)


def test_a_manifest_that_is_no_json_and_a_directory_that_is_none_are_refused(directory, tmp_path):
    (directory / MANIFEST).write_bytes(b"{")
    with pytest.raises(BundleError, match="unreadable"):
        load(directory)
    with pytest.raises(BundleError, match="everlong train"):
        load(tmp_path / "nowhere")


def test_parts_of_two_trainings_are_refused(trained, directory, tmp_path):
    events, catalogue = shop()
    other = save(train(events, catalogue[:-1], AGAIN.replace(epochs=1), seed=1), tmp_path / "other")
    for name in FILES[:2]:
        shutil.copy(other / name, directory / name)
    with pytest.raises(BundleError, match="checksum"):
        load(directory)


def row_of(user):
    timeline = Timeline(deeds(shop()[0])[user])
    timeline.advance()
    return timeline.row


def strange_row(events, queries=0):
    """A user of items, categories and words that no model ever saw."""
    recent = [Behaviour(n * MINUTE, n + 1, f"new{n}", f"other{n % 3}", n % 4) for n in range(events)]
    touched = [Touched((events - 1) * MINUTE, f"other{n}", 1) for n in range(min(events, 3))]
    return UserRow(recent=recent, queries=[Search(n, n + 1, 1, "nie gesehen ✓") for n in range(queries)], categories=touched)


@pytest.mark.parametrize(("events", "queries"), [(0, 0), (0, 1), (1, 0), (1, 3), (100, 512)])
def test_inference_takes_empty_unknown_and_full_histories(trained, events, queries):
    recommender = Recommender(trained)
    users = [strange_row(events, queries), row_of("u1")]
    state = recommender.short(users)
    assert state.vectors.shape == state.pooled.shape == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(state.vectors, axis=1), 1, rtol=1e-5)
    chosen = recommender.categories(users, state, 8)
    assert all(chances == sorted(chances, reverse=True) for chances in ([p for _, p in mine] for mine in chosen))
    full = CategoryRow(events=[Behaviour(n, n + 1, f"i0-{n % 12}", "c0", 0) for n in range(512)])
    requests = [
        (0, "c0", CategoryRow()),
        (0, "never", CategoryRow()),
        (1, "c0", full),
        (1, "other0", CategoryRow(events=users[0].recent[:1])),
    ]
    long = recommender.long(state, requests)
    assert long.shape == (4, 16)
    assert long.dtype == np.float32
    assert np.isfinite(long).all()


def test_a_touched_category_that_no_model_knows_can_be_chosen(trained):
    recommender = Recommender(trained)
    users = [strange_row(5)]
    names = [category for category, _ in recommender.categories(users, recommender.short(users), 9)[0]]
    assert {"other0", "other1", "other2"} <= set(names)


def test_one_user_gets_the_same_alone_and_in_a_batch(trained):
    recommender = Recommender(trained)
    users = [row_of("u2"), UserRow(), row_of("u3")]
    together, alone = recommender.short(users), recommender.short(users[2:])
    np.testing.assert_allclose(together.vectors[2:], alone.vectors, atol=1e-5)
    row = CategoryRow(events=[event for event in users[2].recent if event.category == users[2].recent[-1].category])
    request = users[2].recent[-1].category, row
    one, other = recommender.long(together, [(0, "c0", CategoryRow()), (2, *request)]), recommender.long(alone, [(0, *request)])
    np.testing.assert_allclose(one[1:], other, atol=1e-5)


def test_no_users_no_requests_and_no_items_give_empty_answers(trained):
    recommender = Recommender(trained)
    recommender.warm_up()
    state = recommender.short([])
    assert state.vectors.shape == (0, 16)
    assert recommender.categories([], state, 3) == []
    assert recommender.long(state, []).shape == (0, 16)
    assert recommender.item_vectors([]).shape == (0, 16)


def test_a_new_item_stands_where_its_words_and_image_put_it_without_retraining(trained):
    recommender = Recommender(trained)
    new = Item(item_id="new", category_id="c0", title="red thing of 0", ts=1, image_embedding=[1.0, 0, 0, 0])
    scores = recommender.item_vectors([new]) @ trained.items.vectors.T
    table = trained.items
    same = [score for score, item in zip(scores[0], table.ids, strict=True) if item in ("i0-0", "i0-4", "i0-8")]
    assert max(same) == scores[0].max()
    assert recommender.item_codes(recommender.item_vectors([new])).shape == (1, 4)
    broken = [
        Item(item_id="x", category_id="never", title="", ts=1),
        Item(item_id="y", category_id="c0", title="?", ts=1, image_embedding=[1.0], text_embedding=[1e308] * 3),
        Item(item_id="z", category_id="c0", title="", ts=1, image_embedding=[1e308] * 4),
    ]
    np.testing.assert_allclose(np.linalg.norm(recommender.item_vectors(broken), axis=1), 1, rtol=1e-5)


def test_histories_read_the_vectors_of_remembered_items(trained):
    recommender = Recommender(trained)
    table = trained.items
    known = UserRow(recent=[Behaviour(1, 1, table.ids[5], table.categories[5], 0)])
    new = UserRow(recent=[Behaviour(1, 1, "new", table.categories[5], 0)])
    before = recommender.short([new]).vectors
    recommender.remember(["other", "new"], table.vectors[[0, 5]])
    np.testing.assert_allclose(recommender.short([new]).vectors, recommender.short([known]).vectors, atol=1e-6)
    assert not np.allclose(before, recommender.short([new]).vectors)
    recommender.remember([f"more{n}" for n in range(300)], np.repeat(table.vectors[:1], 300, 0))
    np.testing.assert_allclose(recommender.short([new]).vectors, recommender.short([known]).vectors, atol=1e-6)


def test_there_must_be_something_to_learn_from():
    with pytest.raises(NothingToLearnError):
        train([], [], CONFIG, seed=0)
    events, catalogue = shop(users=2)
    with pytest.raises(NothingToLearnError, match="longer history"):
        train(events, catalogue, CONFIG.replace(cut_ms=0), seed=0)


def test_a_log_without_a_catalogue_is_enough_and_nothing_may_be_held_out():
    events, _ = shop(users=3, events=6)
    bundle = train(events, [], CONFIG.replace(epochs=1, holdout=0.0), seed=0)
    assert bundle.manifest.metrics == {}
    assert set(bundle.items.ids) == {event.item_id for event in events if isinstance(event, Click)} | {
        line.item_id for event in events if isinstance(event, Order) for line in event.lines
    }

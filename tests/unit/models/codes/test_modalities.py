from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from features.events import Item
from models.bundle import load, save
from models.codes.codebook import Codebook
from models.codes.modalities import MODALITIES, arrange, choose, only_fused, slices, weighted
from models.encoding.contents import contents
from models.errors import BundleError, UnknownModalityError
from models.serving.recommender import Recommender
from models.training.train import train
from tests.references import codes as reference_codes
from tests.tiny_bundle import CONFIG, quickly_trained, shop

CODED = ("fused", "text", "image")
KNOWN = Item(item_id="i0-1", category_id="c0", title="green thing of 0", ts=0, image_embedding=[0.0, 1.0, 0.0, 0.0])
BARE = Item(item_id="new", category_id="new", title="", ts=0)


@pytest.fixture(scope="module")
def bundle():
    events, catalogue = shop(users=10, events=20)
    config = CONFIG.replace(epochs=1, holdout=0.0, coded=CODED, subspaces=4)
    return train(events, catalogue, config, seed=0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_weighted_tables_equal_the_slow_formula_also_where_modalities_are_missing(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    (dim, subspaces), n = data.draw(st.sampled_from([(4, 2), (8, 2), (8, 4)])), data.draw(st.integers(1, 300))
    coded = data.draw(st.permutations(("fused", *MODALITIES)).map(lambda names: tuple(names[: rng.integers(1, 6)])))
    weights = {name: data.draw(st.floats(-2, 2, width=32)) for name in coded if data.draw(st.booleans())}
    vectors, parts = rng.standard_normal((n, dim)), rng.standard_normal((n, len(MODALITIES), dim))
    missing = rng.random((n, len(MODALITIES))) < 0.3
    parts[missing] = 0
    rows = arrange(coded, vectors, parts)
    codebook = Codebook.train(rows, len(coded) * subspaces, seed=0, rounds=2)
    codes, queries = codebook.encode(rows), rng.standard_normal((3, dim)).astype(np.float32)
    tables = codebook.tables(weighted(queries, coded, weights))
    decoded = codebook.decode(codes)
    for name, columns in slices(coded, dim).items():
        if name != "fused":
            assert not decoded[missing[:, MODALITIES.index(name)], columns].any()
    for query, table in zip(queries, tables, strict=True):
        scores = table[np.arange(codebook.subspaces), codes].sum(axis=1)
        expected = [reference_codes.weighted_score(query, coded, weights, row) for row in decoded]
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(expected).max()))


def test_the_tower_gives_parts_of_unit_length_and_zeros_for_what_is_missing():
    bundle = quickly_trained(0)
    told = contents([KNOWN, BARE], bundle.vocabulary, bundle.manifest.config.network, bundle.manifest.widths)
    with torch.inference_mode():
        parts = bundle.network.coded(told, MODALITIES).reshape(2, len(MODALITIES), 16)
    lengths = np.linalg.norm(parts, axis=2)
    np.testing.assert_allclose(lengths, [[1, 1, 1, 1], [0, 0, 0, 1]], atol=1e-5)
    known = bundle.network.psu.id.weight[bundle.vocabulary.item("i0-1")].detach()
    np.testing.assert_allclose(parts[0, 0], F.normalize(known, dim=0), atol=1e-6)


def test_codes_of_a_bundle_stand_for_its_parts_and_a_new_item_gets_such_a_code(bundle, tmp_path):
    table, recommender = bundle.items, Recommender(bundle)
    assert not recommender.fused
    assert table.parts.shape == (len(table.ids), 3 * 16)
    assert bundle.manifest.subspaces == bundle.codebook.subspaces == 12
    np.testing.assert_array_equal(table.parts[:, slices(CODED, 16)["fused"]], table.vectors)
    np.testing.assert_array_equal(table.codes, bundle.codebook.encode(table.parts))
    _, catalogue = shop(users=10, events=20)
    of = {item.item_id: item for item in catalogue}
    again = recommender.item_parts([of[item] for item in table.ids])
    np.testing.assert_allclose(again, table.parts, atol=1e-6)
    assert recommender.item_codes(recommender.item_parts([BARE])).shape == (1, 12)
    assert recommender.item_parts([]).shape == (0, 48)
    recommender.warm_up()
    back = load(save(bundle, tmp_path / "bundle"))
    np.testing.assert_array_equal(back.items.parts, table.parts)
    view = back.index().look()
    np.testing.assert_array_equal(view.codes(view.numbers(table.ids)), table.codes)


def test_fused_parts_are_the_vectors_and_nothing_is_kept_twice():
    bundle = quickly_trained(0)
    recommender = Recommender(bundle)
    assert recommender.fused
    assert bundle.items.parts is None
    np.testing.assert_array_equal(recommender.item_parts([KNOWN, BARE]), recommender.item_vectors([KNOWN, BARE]))


def test_a_bundle_whose_parts_were_lost_is_refused(bundle, tmp_path):
    directory = save(replace(bundle, items=replace(bundle.items, parts=None)), tmp_path / "bundle")
    with pytest.raises(BundleError, match="vectors that are coded"):
        load(directory)


@pytest.mark.parametrize("coded", [(), ("sound",), ("id", "id")])
def test_what_is_no_choice_is_refused_before_training(coded):
    with pytest.raises(UnknownModalityError, match="fused, id, text, image, attributes"):
        choose(coded)
    events, catalogue = shop(users=2, events=9)
    with pytest.raises(UnknownModalityError):
        train(events, catalogue, CONFIG.replace(coded=coded), seed=0)


def test_fused_alone_is_the_usual_choice():
    assert only_fused(CONFIG.network.coded)
    assert not only_fused(("fused", "text"))

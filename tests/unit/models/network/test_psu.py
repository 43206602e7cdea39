"""The search unit, GSU and ESU against plain loops, over random shapes and masks; and what they promise at the edges."""

import msgspec
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from features.events import Item
from models.codes.modalities import MODALITIES
from models.config import NetworkConfig, PretrainingConfig
from models.encoding.contents import Widths, contents, grams, pieces, query_words
from models.encoding.histories import NONE
from models.encoding.vocabulary import Vocabulary
from models.network.layers import mean_words
from models.network.psu import ItemVectors, Psu, pair
from models.network.search import HistorySearch, NextPairs, Seminar, Spaces, Steps
from tests.drawn import drawn, masks
from tests.references import seminar as reference

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
CONFIG = NetworkConfig(dim=8, heads=2, buckets=64, attribute_buckets=32, item_dropout=0.0, word_dropout=0.0)
PRETRAINING = PretrainingConfig(searched=4)
VOCABULARY = Vocabulary((), ["known"])
seeds = st.integers(0, 2**31)


def trained_looking(module, seed):
    """Weights as they might be after training: none at its start."""
    with torch.no_grad():
        for n, parameter in enumerate(module.parameters()):
            parameter.copy_(drawn(seed + n, *parameter.shape))
        for table in (module.words, module.attributes):
            table.weight[0] = 0
    return module.eval()


def item(known, title, attributes, image, text):
    return Item(
        item_id="known" if known else "new",
        category_id="c",
        title=title,
        ts=0,
        attributes={"brand": "a"} if attributes else {},
        image_embedding=[1.0, 2.0, -1.0] if image else None,
        text_embedding=[0.5, -2.0] if text else None,
    )


drawn_items = st.builds(item, st.booleans(), st.sampled_from(["", "?!", "red shoe", "Schuh"]), st.booleans(), st.booleans(), st.booleans())


@given(st.lists(drawn_items, max_size=4), seeds)
@settings(deadline=None, max_examples=40)
def test_an_item_is_the_gated_sum_of_the_modalities_it_has(items, seed):
    psu = trained_looking(Psu(CONFIG, VOCABULARY.item_rows, Widths(3, 2)), seed)
    table = contents(items, VOCABULARY, CONFIG, Widths(3, 2))
    found = psu.items(table)
    gate, preference = psu.gate.tolist(), psu.preference.tolist()
    for n, one in enumerate(items):
        says = any(c.isalnum() for c in one.title)
        has = [one.item_id == "known", says or one.text_embedding is not None, one.image_embedding is not None, True]
        assert found.present[n].tolist() == has
        words = reference.keywords(psu.words.weight.tolist(), table.title[n].tolist())
        told = reference.unit(reference.times(psu.text.weight.tolist(), table.text[n].tolist()))
        slow = [
            reference.unit(psu.id.weight[int(table.item[n])].tolist()),
            reference.unit([a + b for a, b in zip(words, told, strict=True)]),
            reference.unit(reference.times(psu.image.weight.tolist(), table.image[n].tolist())),
            reference.keywords(psu.attributes.weight.tolist(), table.attributes[n].tolist()),
        ]
        for m, here in enumerate(has):
            torch.testing.assert_close(found.modalities[n, m], torch.tensor(slow[m] if here else [0.0] * 8), **CLOSE)
        torch.testing.assert_close(found.item[n], torch.tensor(reference.fused_item(slow, has, gate, preference)), **CLOSE)
    assert (found.gates[~found.present] == 0).all()


def test_an_item_without_any_modality_is_nothing_and_trains_nothing():
    psu = Psu(CONFIG, VOCABULARY.item_rows, Widths())
    table = contents([item(False, "", False, False, False)], VOCABULARY, CONFIG, Widths())
    found = psu.items(table._replace(attributes=np.zeros_like(table.attributes)))
    assert not found.here.any()
    assert (found.item == 0).all()
    found.item.sum().backward()
    assert all(parameter.grad is None or torch.isfinite(parameter.grad).all() for parameter in psu.parameters())


@given(st.lists(st.sampled_from(["", "   ", "?!", "xbox", "xbox 360 hard drive", "ß"]), max_size=5), seeds)
@settings(deadline=None, max_examples=30)
def test_a_query_is_the_mean_of_its_keywords_and_padding_is_none(texts, seed):
    psu = trained_looking(Psu(CONFIG, VOCABULARY.item_rows, Widths()), seed)
    words = query_words(texts, CONFIG)
    found, wider = psu.queries(words), psu.queries(np.pad(words, ((0, 0), (0, 3))))
    torch.testing.assert_close(found.query, wider.query)
    for n, text in enumerate(texts):
        assert bool(found.here[n]) == any(c.isalnum() for c in text)
        slow = reference.keywords(psu.words.weight.tolist(), words[n].tolist())
        torch.testing.assert_close(found.query[n], torch.tensor(slow), **CLOSE)


@given(st.integers(0, 5), st.floats(0.05, 0.95), seeds)
@settings(deadline=None, max_examples=40)
def test_a_pair_may_lack_its_query_or_its_item_or_both(count, share, seed):
    query, vector, has_query, has_item = drawn(seed, count, 3), drawn(seed + 1, count, 3), masks(seed, count), masks(seed + 1, count)
    found = pair(query, has_query, vector, has_item, share)
    for n in range(count):
        one, other = query[n].tolist() if has_query[n] else None, vector[n].tolist() if has_item[n] else None
        torch.testing.assert_close(found[n], torch.tensor(reference.pair(one, other, share, 3)), **CLOSE)


@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([0, 1, 3, 4, 5, 7]), seeds)
@settings(deadline=None, max_examples=60)
def test_gsu_and_esu_are_those_of_the_loops(batch, count, length, seed):
    torch.manual_seed(seed)
    search = HistorySearch(8, 2, searched=4)
    targets, history, mask = drawn(seed, batch, count, 8), drawn(seed + 1, batch, length, 8), masks(seed, batch, length)
    weights = {name: getattr(search, name).weight.tolist() for name in ("query", "key", "value", "out")}
    found, interest = search.gsu(targets, history, mask), search(targets, history, mask)
    torch.testing.assert_close(interest, search.esu(targets, history, found))
    for b in range(batch):
        for c in range(count):
            target = targets[b, c].tolist()
            at = reference.gsu(target, history[b].tolist(), mask[b].tolist(), weights["query"], weights["key"], 4)
            assert found.at[b, c][found.here[b, c]].tolist() == at
            slow = reference.esu(target, [history[b, n].tolist() for n in at], weights, 2, search.empty.tolist())
            torch.testing.assert_close(interest[b, c], torch.tensor(slow), **CLOSE)
            assert mask[b].any() or torch.equal(interest[b, c], search.empty)


def test_gsu_and_esu_share_their_projections_and_all_of_them_are_trained():
    model = Seminar(Psu(CONFIG, VOCABULARY.item_rows, Widths(3, 2)), PRETRAINING)
    table = contents([item(True, "red shoe", True, True, True), item(False, "x", False, False, False)], VOCABULARY, CONFIG, Widths(3, 2))
    items, queries = model.psu.items(table), model.psu.queries(query_words(["shoe", "red"], CONFIG))
    steps = Steps(torch.tensor([[0, NONE, 1], [NONE, NONE, NONE]]), torch.tensor([[0, 1, NONE], [NONE, NONE, NONE]]))
    logits = model.logits(items, queries, steps, NextPairs(torch.tensor([[0, 1], [1, 0]]), torch.tensor([1, NONE])))
    logits.log_softmax(1)[:, 0].sum().backward()
    assert torch.isfinite(logits).all()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.abs().sum() > 0}
    assert without <= {"search.empty", "head.2.bias"}  # the EOS step leaves no history empty; a bias for all candidates moves none
    assert sum("search.query" in name for name in model.state_dict()) == 1
    assert model.spaces.modalities.shape == (len(MODALITIES), 8, 8)


@given(st.integers(0, 4), seeds)
@settings(deadline=None, max_examples=30)
def test_padding_of_a_history_changes_no_logit(length, seed):
    torch.manual_seed(seed)
    model = Seminar(Psu(CONFIG, VOCABULARY.item_rows, Widths()), PRETRAINING).eval()
    items = model.psu.items(
        contents([item(True, "a b", False, False, False), item(False, "c", True, False, False)], VOCABULARY, CONFIG, Widths())
    )
    queries = model.psu.queries(query_words(["a", "c d"], CONFIG))
    rng = np.random.default_rng(seed)
    item_at, query_at = (torch.from_numpy(rng.integers(-1, 2, (2, length))) for _ in range(2))
    asked = NextPairs(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, NONE]))
    padding = torch.full((2, 3), NONE)
    wider = Steps(torch.cat([item_at, padding], 1), torch.cat([query_at, padding], 1))
    found = model.logits(items, queries, Steps(item_at, query_at), asked)
    torch.testing.assert_close(found, model.logits(items, queries, wider, asked))
    assert torch.isfinite(found).all()


def test_projections_start_as_the_identity_and_keep_modalities_apart():
    spaces, gates = Spaces(3), torch.tensor([[0.25, 0.75, 0.0, 0.0]])
    modalities = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0], [0, 0, 0], [0, 0, 0]]])
    items = ItemVectors(modalities, gates, gates > 0)
    torch.testing.assert_close(spaces.items(items), items.item)
    with torch.no_grad():
        spaces.modalities[1] *= 2
    torch.testing.assert_close(spaces.items(items), torch.tensor([[0.25, 1.5, 0.0]]))


def test_misspellings_share_ids_and_words_come_first():
    assert len({*pieces("assassins creed", CONFIG)} & {*pieces("assasins creed", CONFIG)}) > 10
    assert pieces("a b", CONFIG)[:2] == [pieces("a", CONFIG)[0], pieces("b", CONFIG)[0]]
    assert grams("a", 5) == ["#a#"]
    assert pieces("?! ", CONFIG) == []


def test_pieces_follow_the_words_of_every_script():
    wide = msgspec.structs.replace(CONFIG, buckets=32_768)
    assert {*pieces("手机", wide)} < {*pieces("新款手机壳", wide)}
    assert len({tuple(pieces(word, wide)) for word in ("जूते", "जाति", "जीत", "जोत", "जाते")}) == 5
    assert pieces("CAFE\u0301", wide) == pieces("café", wide)
    only = msgspec.structs.replace(CONFIG, words=False, grams=(3,))
    assert len(pieces("cat", only)) == 3


def test_a_text_without_a_given_vector_is_its_words_alone_to_the_last_bit():
    psu = trained_looking(Psu(CONFIG, VOCABULARY.item_rows, Widths(3, 2)), 0)
    words, given = torch.from_numpy(query_words(["red", "", "blue shoe", ""], CONFIG)), torch.tensor([[0.6, 0.8], [1, 0], [0, 0], [0, 0]])
    mean, text = F.normalize(mean_words(psu.words, words), dim=-1), F.normalize(psu.text(given), dim=-1)
    found, here = psu.said(words, given)
    assert torch.equal(found, F.normalize(mean + text, dim=-1))
    assert here.tolist() == [True, True, True, False]

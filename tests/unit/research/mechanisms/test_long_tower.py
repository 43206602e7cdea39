"""Mechanisms of the long tower, each compared with plain loops, trained and served."""

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events import Item
from features.history import deeds
from models.encoding.contents import contents, strangers
from models.encoding.vocabulary import UNKNOWN
from models.network.layers import attend
from models.network.ulim import Network
from models.serving.recommender import Recommender
from models.training.train import learn
from research import mechanisms
from research.mechanisms.memory import SEGMENT, Memory
from research.mechanisms.self_pooling import SelfPooling
from research.mechanisms.target_free import NEWEST, TargetFreePooling
from tests.drawn import drawn, masks
from tests.references import towers as reference
from tests.tiny_bundle import CONFIG, quickly_trained, shop

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
sizes = st.tuples(
    st.integers(1, 3), st.sampled_from([1, 2, NEWEST - 1, NEWEST, NEWEST + 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT + 1]), st.integers(0, 2**31)
)
BUILDERS = [
    mechanisms.attention_table(8),
    mechanisms.TARGET_FREE,
    mechanisms.memory(4),
    mechanisms.SELF_ATTENTION,
    mechanisms.RECURRENT,
    mechanisms.PACKED,
]


def attended(query, keys, values, mask):
    shares = reference.attend(query.tolist(), keys.tolist(), mask)
    return sum((share * value for share, value in zip(shares, values, strict=True)), torch.zeros(values.shape[1])), torch.tensor(shares)


@given(sizes)
@settings(deadline=None, max_examples=30)
def test_three_queries_are_those_of_the_loops(shape):
    batch, length, seed = shape
    torch.manual_seed(seed)
    pool, tokens, mask = TargetFreePooling(4), drawn(seed, batch, length, 4), masks(seed, batch, length)
    mask[0], pooled = False, drawn(seed + 1, batch, 4)
    with torch.inference_mode():
        found, attention = pool(tokens, mask, pooled)
        keys = pool.target.key(tokens)
        for b in range(batch):
            here = mask[b].tolist()
            last = reference.newest(here, NEWEST)
            near, far = (torch.tensor(reference.masked_mean(tokens[b].tolist(), of)) for of in (last, here))
            asked = (pool.target.query(pooled[b]), pool.near(near), pool.far(far))
            parts, shares = zip(*(attended(query, keys[b], tokens[b], here) for query in asked), strict=True)
            torch.testing.assert_close(found[b], pool.fuse(torch.cat(parts)), **CLOSE)
            torch.testing.assert_close(attention[b], sum(shares) / 3, **CLOSE)


@given(sizes)
@settings(deadline=None, max_examples=30)
def test_the_memory_is_that_of_the_loops(shape):
    batch, length, seed = shape
    torch.manual_seed(seed)
    memory, tokens, mask = Memory(4, 3), drawn(seed, batch, length, 4), masks(seed, batch, length)
    mask[0], pooled = False, drawn(seed + 1, batch, 4)
    with torch.inference_mode():
        found = memory(tokens, mask, pooled)
        for b in range(batch):
            slots = memory.slots.clone()
            for start in range(0, length, SEGMENT):
                at = slice(start, start + SEGMENT)
                here = mask[b, at].tolist()
                if not any(here):
                    continue
                keys, values = memory.key(tokens[b, at]), memory.value(tokens[b, at])
                each = torch.stack([attended(memory.ask(slot), keys, values, here)[0] for slot in slots])
                gate = memory.gate(torch.cat([slots, each], 1)).sigmoid()
                slots = (1 - gate) * slots + gate * each
            read, _ = attended(memory.query(pooled[b]), memory.slot_key(slots), slots, [True] * 3)
            torch.testing.assert_close(found[b], memory.out(read), **CLOSE)
    torch.testing.assert_close(memory.write(tokens, mask)[0], memory.slots)


def network(build_network=Network):
    bundle = quickly_trained(0)
    torch.manual_seed(0)
    return build_network(CONFIG.network, bundle.vocabulary.category_rows, bundle.vocabulary.item_rows, bundle.manifest.widths).eval()


def test_each_adds_weights_but_packing_which_moves_rows_alone():
    usual = network().state_dict().keys()
    for build_network in BUILDERS:
        assert (network(build_network).state_dict().keys() == usual) == (build_network is mechanisms.PACKED)


def test_a_new_item_has_a_key_of_the_unknown_id_its_category_and_its_words():
    net, bundle = network(mechanisms.attention_table(6)), quickly_trained(0)
    new = [Item(item_id="new", category_id="c1", title=title, ts=0) for title in ("red thing", "red thing", "blue thing")]
    new.append(msgspec.structs.replace(new[0], category_id="c2"))
    told = contents(new, bundle.vocabulary, net.psu.config, bundle.manifest.widths)
    assert set(told.item) == {UNKNOWN}
    with torch.no_grad():
        table = net.table(net.items(told), told.item)
        assert table.shape == (4, CONFIG.network.dim + 6)
        category = torch.tensor([[bundle.vocabulary.category(item.category_id)] for item in new])
        here = torch.ones(4, 1, dtype=torch.bool)
        tokens = net.towers.tokens.into(table[:, None, : CONFIG.network.dim])
        keys = net.attention(table[:, None, CONFIG.network.dim :], here, category, tokens)[:, 0]
    assert torch.equal(keys[0], keys[1])
    assert not torch.allclose(keys[0], keys[2], atol=1e-4)
    assert not torch.allclose(keys[0], keys[3], atol=1e-4)
    unknown = net.attention.item.weight[UNKNOWN]
    expected = unknown + net.attention.category(category[:, 0]) + net.attention.content(tokens[:, 0])
    torch.testing.assert_close(keys, expected)


def test_attention_of_its_own_table_does_not_move_the_representations():
    net, bundle = network(mechanisms.attention_table(6)), quickly_trained(0)
    told = strangers(bundle.vocabulary, net.psu.config, bundle.manifest.widths)
    vectors = net.items(told).requires_grad_()
    table = net.table(vectors, told.item)
    tokens = net.towers.tokens.into(vectors[None])
    there = torch.ones(1, len(vectors), dtype=torch.bool)
    keys = net.attention(table[None, :, CONFIG.network.dim :], there, torch.arange(len(vectors))[None], tokens)
    attend(drawn(0, 1, 6), keys, there)[0, 0].backward()
    moved = {name for name, weights in net.named_parameters() if weights.grad is not None and weights.grad.abs().sum() > 0}
    assert moved == {f"attention.{name}" for name in ("item.weight", "category.weight", "content.weight")}


def trained(build_network):
    events, catalogue = shop(users=10, events=20)
    done = deeds(events)
    return learn(done, catalogue, CONFIG.replace(epochs=1), 0, cut_ms=events[-1].ts + 1, build_network=build_network)


@pytest.mark.parametrize("build_network", BUILDERS)
def test_each_learns_and_serves_known_items_new_ones_and_empty_users(build_network):
    bundle = trained(build_network)
    recommender = Recommender(bundle)
    recommender.warm_up()
    new = [Item(item_id="new", category_id="c1", title="red thing", ts=0)]
    recommender.remember(["new"], recommender.item_vectors(new))
    assert np.isfinite(recommender.item_vectors(new)).all()
    untrained, usual = network(build_network).state_dict(), network().state_dict()
    still = {name for name, weights in bundle.network.state_dict().items() if torch.equal(weights, untrained[name])}
    assert still <= usual.keys()  # every added weight is trained


def test_reading_a_new_item_by_its_vector_is_reading_it_from_the_table():
    bundle = trained(mechanisms.attention_table(8))
    recommender = Recommender(bundle)
    before = recommender._vectors.clone()
    known = bundle.items.ids[:5]
    recommender.remember(known, bundle.items.vectors[:5])
    assert torch.equal(recommender._vectors[: len(before)], before)


@given(st.integers(1, 4), st.integers(1, 7), st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_pooling_by_self_attention_is_that_of_the_loops(batch, length, seed):
    torch.manual_seed(seed)
    pooling, tokens, mask = SelfPooling(4, 1), drawn(seed, batch, length, 4), masks(seed, batch, length)
    mask[:, 0] = True
    block = pooling.block
    with torch.inference_mode():
        pooled, attention = pooling(tokens, mask, drawn(seed, batch, 4))
        query, key, value = block.qkv(block.first(tokens)).split(4, -1)
        for b in range(batch):
            here = mask[b].tolist()
            slow = torch.tensor(reference.self_attention(query[b].tolist(), key[b].tolist(), value[b].tolist(), here))
            read = tokens[b] + block.mix(slow)
            read = read + block.feed(block.second(read))
            torch.testing.assert_close(pooled[b], torch.tensor(reference.masked_mean(read.tolist(), here)), **CLOSE)
    torch.testing.assert_close(attention.sum(1), torch.ones(batch))
    assert (attention[~mask] == 0).all()

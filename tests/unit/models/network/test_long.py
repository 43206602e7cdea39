"""What the long tower may ask of a lifelong sequence: three queries, a memory, a table of attention alone; each beside plain loops."""

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events import Item
from models.config import NetworkConfig
from models.encoding.contents import contents, strangers
from models.encoding.vocabulary import UNKNOWN
from models.network.layers import attend
from models.network.memory import SEGMENT, Memory
from models.network.target_free import NEWEST, TargetFreePooling, counted_mean
from models.network.ulim import Network
from models.serving.recommender import Recommender
from models.training.train import train
from tests.drawn import drawn, masks
from tests.references import towers as reference
from tests.tiny_bundle import CONFIG, quickly_trained, shop

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
sizes = st.tuples(
    st.integers(1, 3), st.sampled_from([1, 2, NEWEST - 1, NEWEST, NEWEST + 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT + 1]), st.integers(0, 2**31)
)
SWITCHES = [{"attention_dim": 8}, {"target_free": True}, {"memory": 4}, {"short_encoder": "recurrent"}, {"packed": True}]


def attended(query, keys, values, mask, weight):
    shares = reference.attend(query.tolist(), keys.tolist(), mask, weight.tolist())
    return sum((share * value for share, value in zip(shares, values, strict=True)), torch.zeros(values.shape[1])), torch.tensor(shares)


@given(sizes)
@settings(deadline=None, max_examples=30)
def test_three_queries_are_those_of_the_loops(shape):
    batch, length, seed = shape
    torch.manual_seed(seed)
    pool, tokens, mask = TargetFreePooling(4, 4), drawn(seed, batch, length, 4), masks(seed, batch, length)
    mask[0], pooled = False, drawn(seed + 1, batch, 4)
    weight = drawn(seed + 2, batch, length).abs()
    with torch.inference_mode():
        found, attention = pool(tokens, mask, weight, pooled, tokens)
        keys, counts = pool.target.key(tokens), weight.exp()
        for b in range(batch):
            here = mask[b].tolist()
            last = reference.newest(here, NEWEST)
            near, far = (
                torch.tensor(reference.counted_mean(tokens[b].tolist(), [n * kept for n, kept in zip(counts[b].tolist(), of, strict=True)]))
                for of in (last, here)
            )
            asked = (pool.target.query(pooled[b]), pool.near(near), pool.far(far))
            parts, shares = zip(*(attended(query, keys[b], tokens[b], here, weight[b]) for query in asked), strict=True)
            torch.testing.assert_close(found[b], pool.fuse(torch.cat(parts)), **CLOSE)
            torch.testing.assert_close(attention[b], sum(shares) / 3, **CLOSE)


def test_a_bucket_of_n_events_counts_n_times_in_a_query():
    tokens = drawn(0, 1, 3, 4)
    many = torch.cat([tokens[:, :1].expand(-1, 5, -1), tokens[:, 1:]], 1)
    torch.testing.assert_close(counted_mean(tokens, torch.tensor([[5.0, 1.0, 1.0]])), counted_mean(many, torch.ones(1, 7)))


@given(sizes)
@settings(deadline=None, max_examples=30)
def test_the_memory_is_that_of_the_loops(shape):
    batch, length, seed = shape
    torch.manual_seed(seed)
    memory, tokens, mask = Memory(4, 3), drawn(seed, batch, length, 4), masks(seed, batch, length)
    mask[0], pooled, weight = False, drawn(seed + 1, batch, 4), drawn(seed + 2, batch, length).abs()
    with torch.inference_mode():
        found = memory(tokens, mask, weight, pooled)
        for b in range(batch):
            slots = memory.slots.clone()
            for start in range(0, length, SEGMENT):
                at = slice(start, start + SEGMENT)
                here = mask[b, at].tolist()
                if not any(here):
                    continue
                keys, values = memory.key(tokens[b, at]), memory.value(tokens[b, at])
                each = torch.stack([attended(memory.ask(slot), keys, values, here, weight[b, at])[0] for slot in slots])
                gate = memory.gate(torch.cat([slots, each], 1)).sigmoid()
                slots = (1 - gate) * slots + gate * each
            read, _ = attended(memory.query(pooled[b]), memory.slot_key(slots), slots, [True] * 3, torch.zeros(3))
            torch.testing.assert_close(found[b], memory.out(read), **CLOSE)
    torch.testing.assert_close(memory.write(tokens, mask, weight)[0], memory.slots)


def network(**changes):
    bundle = quickly_trained(0)
    torch.manual_seed(0)
    config = CONFIG.replace(**changes)
    return Network(config.network, bundle.vocabulary.category_rows, bundle.vocabulary.item_rows, bundle.manifest.widths).eval()


def test_nothing_is_added_to_a_network_where_nothing_is_switched_on():
    usual = network().state_dict()
    for changes in SWITCHES:
        assert (network(**changes).state_dict().keys() == usual.keys()) == ("packed" in changes)  # packing is of rows, not of weights
    off = {"attention_dim": 0, "target_free": False, "memory": 0, "short_encoder": "attention", "packed": False}
    for name, weights in network(**off).state_dict().items():
        assert torch.equal(weights, usual[name])


def test_a_new_item_has_a_key_of_the_unknown_id_its_category_and_its_words():
    net, bundle = network(attention_dim=6), quickly_trained(0)
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
        keys = net.towers.attention(table[:, None, CONFIG.network.dim :], here, category, tokens)[:, 0]
    assert torch.equal(keys[0], keys[1])
    assert not torch.allclose(keys[0], keys[2], atol=1e-4)
    assert not torch.allclose(keys[0], keys[3], atol=1e-4)
    unknown = net.towers.attention.item.weight[UNKNOWN]
    expected = unknown + net.towers.attention.category(category[:, 0]) + net.towers.attention.content(tokens[:, 0])
    torch.testing.assert_close(keys, expected)


def test_attention_of_its_own_table_does_not_move_the_representations():
    net, bundle = network(attention_dim=6), quickly_trained(0)
    told = strangers(bundle.vocabulary, net.psu.config, bundle.manifest.widths)
    vectors = net.items(told).requires_grad_()
    table = net.table(vectors, told.item)
    tokens = net.towers.tokens.into(vectors[None])
    there = torch.ones(1, len(vectors), dtype=torch.bool)
    keys = net.towers.attention(table[None, :, CONFIG.network.dim :], there, torch.arange(len(vectors))[None], tokens)
    attend(drawn(0, 1, 6), keys, there, torch.zeros(1, len(vectors)))[0, 0].backward()
    moved = {name for name, weights in net.named_parameters() if weights.grad is not None and weights.grad.abs().sum() > 0}
    assert moved == {f"towers.attention.{name}" for name in ("item.weight", "category.weight", "content.weight")}


@pytest.mark.parametrize("changes", SWITCHES)
def test_each_learns_and_serves_known_items_new_ones_and_empty_users(changes):
    events, catalogue = shop(users=10, events=20)
    bundle = train(events, catalogue, CONFIG.replace(epochs=1, **changes), seed=0)
    recommender = Recommender(bundle)
    recommender.warm_up()
    new = [Item(item_id="new", category_id="c1", title="red thing", ts=0)]
    recommender.remember(["new"], recommender.item_vectors(new))
    assert np.isfinite([value for scores in bundle.manifest.metrics.values() for value in scores.values()]).all()
    untrained, usual = network(**changes).state_dict(), network().state_dict()
    still = {name for name, weights in bundle.network.state_dict().items() if torch.equal(weights, untrained[name])}
    assert still <= usual.keys()  # whatever is added is learnt


def test_reading_a_new_item_by_its_vector_is_reading_it_from_the_table():
    config = CONFIG.replace(epochs=1, attention_dim=8, holdout=0.0)
    events, catalogue = shop(users=10, events=20)
    bundle = train(events, catalogue, config, seed=0)
    recommender = Recommender(bundle)
    before = recommender._vectors.clone()
    known = bundle.items.ids[:5]
    recommender.remember(known, bundle.items.vectors[:5])
    assert torch.equal(recommender._vectors[: len(before)], before)


def test_the_default_is_none_of_them():
    config = NetworkConfig()
    assert (config.attention_dim, config.target_free, config.memory) == (0, False, 0)
    assert (config.short_encoder, config.packed) == ("attention", False)

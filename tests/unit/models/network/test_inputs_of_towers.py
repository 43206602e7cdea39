"""Every switch of the towers: what is off is not read, what is on is, and each says what its slow reference says."""

import msgspec
import numpy as np
import pytest
import torch

from features.rows import KINDS
from models.config import NetworkConfig
from models.encoding.contents import Widths, strangers
from models.encoding.inputs import FOLDED, QUERY, Tokens
from models.encoding.vocabulary import Vocabulary
from models.network.ulim import Network, NextCategory
from research import mechanisms
from tests.drawn import drawn

WIDTHS = Widths(image=3)
SMALL = NetworkConfig(dim=8, heads=2, buckets=16, attribute_buckets=16)
VOCABULARY = Vocabulary(["a", "b"], ["i"])
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def network(**changes):
    torch.manual_seed(0)
    config = msgspec.structs.replace(SMALL, **changes)
    return Network(config, VOCABULARY.category_rows, VOCABULARY.item_rows, WIDTHS).eval()


def history(rng, batch, length):
    """Tokens of all kinds, padded on the right; and the words of three texts."""
    kind = np.where(np.arange(length) < rng.integers(0, length + 1, batch)[:, None], rng.integers(1, FOLDED + 1, (batch, length)), 0)
    numbers = (rng.integers(0, high, (batch, length)) * (kind > 0) for high in (4, 4, 20, 3))
    item, category, gap, text = numbers
    weight = np.where(kind == FOLDED, np.log(5), 0).astype(np.float32)
    words = np.array([[0, 0], [3, 4], [5, 0]])
    return Tokens(item, category, kind, gap, text, weight), words


def outputs(net, tokens, words, pooled=None):
    vectors = net.items(strangers(VOCABULARY, SMALL, WIDTHS))
    batch = len(tokens.item)
    p, u = drawn(1, batch, 8) if pooled is None else pooled, drawn(2, batch, 8)
    with torch.inference_mode():
        return net.long(vectors, tokens, net.texts(words), p, u, torch.full((batch,), 2))


SWITCHES = [
    ("time_gap", "gap", lambda kind: np.full_like(kind, 7)),
    ("paired_text", "text", lambda kind: np.where((kind > 0) & (kind < QUERY), 1, 0)),
]


@pytest.mark.parametrize(("switch", "field", "other"), SWITCHES)
def test_what_is_switched_off_is_not_read_and_what_is_on_is(switch, field, other):
    tokens, words = history(np.random.default_rng(0), 6, 9)
    tokens = tokens._replace(text=tokens.text * (tokens.kind < QUERY))
    changed = tokens._replace(**{field: other(tokens.kind)})
    on, off = network(), network(**{switch: False})
    assert not torch.allclose(outputs(on, tokens, words), outputs(on, changed, words), atol=1e-4)
    torch.testing.assert_close(outputs(off, tokens, words), outputs(off, changed, words))


def test_without_kinds_all_behaviours_are_alike_but_searches_and_buckets_are_not():
    rng = np.random.default_rng(0)
    tokens, words = history(rng, 6, 9)
    behaviour = (tokens.kind > 0) & (tokens.kind < QUERY)
    changed = tokens._replace(kind=np.where(behaviour, 1 + rng.integers(0, len(KINDS), tokens.kind.shape), tokens.kind))
    on, off = network(), network(kind=False)
    assert not torch.allclose(outputs(on, tokens, words), outputs(on, changed, words), atol=1e-4)
    torch.testing.assert_close(outputs(off, tokens, words), outputs(off, changed, words))
    searched = tokens._replace(kind=np.where(behaviour, FOLDED, tokens.kind))
    assert not torch.allclose(outputs(off, tokens, words), outputs(off, searched, words), atol=1e-4)


def test_the_long_tower_attends_by_the_short_history_unless_it_pools_by_self_attention():
    tokens, words = history(np.random.default_rng(1), 5, 9)
    for build_network in (Network, mechanisms.SELF_ATTENTION):
        torch.manual_seed(0)
        net = build_network(SMALL, VOCABULARY.category_rows, VOCABULARY.item_rows, WIDTHS).eval()
        net.towers.long.dnn[0].weight.data[:, 16:] = 0  # p_s comes in by the attention alone
        same = torch.allclose(outputs(net, tokens, words), outputs(net, tokens, words, drawn(9, 5, 8)), atol=1e-5)
        assert same == (build_network is mechanisms.SELF_ATTENTION)


def test_categories_come_from_both_or_from_one_part_alone():
    gate, pointer, generator = torch.tensor([[0.25]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]])
    next_ = NextCategory(gate * pointer + (1 - gate) * generator, pointer, generator, gate, pointer)
    assert [next_.by(source)[0][0].tolist() for source in ("gated", "pointer", "generator")] == [[0.375, 0.625], [0, 1], [0.5, 0.5]]
    assert [next_.by(source)[1].item() for source in ("gated", "pointer", "generator")] == [0.25, 1, 0]

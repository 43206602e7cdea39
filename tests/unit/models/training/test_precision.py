"""Mixed precision: on CUDA only; what it computes is close to float32, and the weights stay float32."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from features.history import deeds
from models.network.ulim import Network, Pgin
from models.training.devices import Precision, Ranks
from models.training.loop import Run, fit
from models.training.pretraining import same
from models.training.train import learn
from research import mechanisms
from research.mechanisms import encoding, pooling
from research.mechanisms.packing import PackedAttention
from research.mechanisms.self_pooling import SelfPooling
from tests.tiny_bundle import CONFIG, NO_PRETRAINING, shop
from tests.unit.models.training.test_loop import ROWS, network, phase

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: run the tests on a machine with one")


def trained(model, precision=None, epochs=30):
    told = []
    fit(model, phase(model, examples=ROWS, epochs=epochs), np.random.default_rng(0), told.append, Run(precision=precision))
    return told


def test_a_cpu_computes_in_float32():
    precision = Precision.of(CPU)
    assert precision.half is None
    with precision.computing():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_learns_as_well_and_keeps_float32_weights(half):
    """The arithmetic of CUDA's mixed precision, on the CPU, which knows both types too."""
    full, mixed = network(), network()
    expected, found = trained(full), trained(mixed, Precision(CPU, half))
    assert found[-1].loss == pytest.approx(expected[-1].loss, rel=0.1)
    assert [now.loss for now in found] != [now.loss for now in expected]
    assert {tensor.dtype for tensor in mixed.state_dict().values()} == {torch.float32}


def test_an_overflow_in_float16_leaves_the_step_out_and_lowers_the_scale():
    precision = Precision(CPU, torch.float16)
    model = network()
    todo = phase(model, examples=8, epochs=2)
    calls = []

    def loss(batch, rng):
        calls.append(len(batch))
        return model(torch.from_numpy(batch)).square().mean() * (float("inf") if len(calls) == 1 else 1.0)

    before = [tensor.clone() for tensor in model.parameters()]
    seen = []
    fit(
        model,
        todo._replace(loss=loss),
        np.random.default_rng(0),
        lambda _: seen.append([torch.equal(now, old) for now, old in zip(model.parameters(), before, strict=True)]),
        Run(precision=precision),
    )
    assert all(seen[0])
    assert not all(seen[1])
    assert precision.scaler.get_scale() == 2.0**15


@needs_cuda
def test_cuda_computes_products_in_half_precision_and_learns_as_well():
    device = torch.device("cuda")
    precision = Precision.of(device)
    assert precision.half in (torch.bfloat16, torch.float16)
    with precision.computing():
        assert (torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)).dtype == precision.half
    full, mixed = network(), network().to(device)
    expected = trained(full)
    todo = phase(mixed, examples=ROWS, epochs=30)
    wanted = torch.arange(ROWS, device=device) % 2 * 2.0 - 1

    def loss(batch, rng):
        rows = torch.from_numpy(batch).to(device)
        weights = torch.from_numpy(rng.random(len(batch))).float().to(device)
        return (weights * (mixed(rows) - wanted[rows]).square()).mean()

    told = []
    fit(mixed, todo._replace(loss=loss), np.random.default_rng(0), told.append)
    assert told[-1].loss == pytest.approx(expected[-1].loss, rel=0.3)


def packed_attention(config):
    return PackedAttention(config.dim, config.heads)


def self_pooling(config):
    return SelfPooling(config.dim, config.heads)


def on_cuda(monkeypatch):
    """A norm is computed in float32 there, its vector stays in half: what autocast on a CPU does not do by itself."""

    def normalize(x, p=2.0, dim=1, eps=1e-12):
        return x / x.float().norm(p, dim, keepdim=True).clamp_min(eps)

    monkeypatch.setattr(F, "normalize", normalize)


@pytest.mark.parametrize(
    ("changed", "build_network"),
    [
        ({}, Network),
        ({"pretraining": NO_PRETRAINING}, encoding(packed_attention, mechanisms.attention_table(8))),
        ({"pretraining": NO_PRETRAINING}, mechanisms.TARGET_FREE),
        ({"pretraining": NO_PRETRAINING}, mechanisms.memory(2)),
        ({"pretraining": NO_PRETRAINING}, pooling(self_pooling, mechanisms.RECURRENT)),
    ],
    ids=["usual", "attention table", "target-free", "memory", "recurrent"],
)
def test_the_whole_network_learns_in_float16_and_keeps_its_scale(monkeypatch, changed, build_network):
    on_cuda(monkeypatch)
    events, catalogue = shop(users=10, events=20)
    done, cut_ms = deeds(events), events[-1].ts + 1
    config = CONFIG.replace(epochs=4, batch=16, **changed)
    losses, scales = [], []
    for half in (None, torch.float16):
        precision, told = Precision(CPU, half), []

        def tell(now, told=told, precision=precision):
            told.append(now)
            scales.append(precision.scaler.get_scale())

        learn(done, catalogue, config, 0, tell, cut_ms=cut_ms, run=Run(precision=precision), build_network=build_network)
        phases = list(dict.fromkeys(now.phase for now in told if now.examples))
        losses.append([[now.loss for now in told if now.phase == phase] for phase in phases])
    assert min(scales) >= 1
    for full, mixed in zip(*losses, strict=True):
        assert mixed[-1] == pytest.approx(full[-1], rel=0.05)
    assert losses[1][-1][-1] < losses[1][-1][0]


def test_a_mixed_chance_far_from_the_gate_still_learns_in_half_precision():
    """What the gate leaves to the generator must not be rounded to nothing: the target is a category that nobody touched."""
    torch.manual_seed(0)
    pgin = Pgin(16)
    with torch.no_grad():
        pgin.gate[2].bias.fill_(9.0)
    given = (
        torch.randn(4, 16),
        torch.randn(4, 16),
        torch.randn(4, 3, 16),
        torch.tensor([[2, 3, 4]] * 4),
        torch.randn(10, 16),
        torch.zeros(10),
    )
    losses = []
    for half in (None, torch.bfloat16, torch.float16):
        pgin.zero_grad()
        with Precision(CPU, half).computing():
            losses.append(-pgin(*given).mixed[:, 8].clamp(min=1e-9).log().mean())
        losses[-1].backward()
        assert pgin.gate[2].bias.grad.abs() > 0.9
    assert [loss.item() for loss in losses[1:]] == pytest.approx([losses[0].item()] * 2, rel=0.05)


@pytest.mark.parametrize("half", [None, torch.bfloat16, torch.float16])
def test_the_same_vectors_are_the_same_in_any_precision(half):
    vectors = F.normalize(torch.randn(500, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    with Precision(CPU, half).computing():
        found = same(vectors.repeat(2, 1))
    assert torch.equal(found, torch.eye(500, dtype=torch.bool).repeat(2, 2))


class Second(Ranks):
    """The second of two, whose gradients all come from the first."""

    def average(self, parameters, loss, share):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 2.0**16)
        return loss.item()

    def agree(self, about):
        pass


def test_a_rank_without_an_example_in_its_first_step_takes_it_in_float16():
    model = network()
    before = [tensor.clone() for tensor in model.parameters()]
    run = Run(ranks=Second(1, 2), precision=Precision(CPU, torch.float16))
    fit(model, phase(model, examples=1, size=1, epochs=1), np.random.default_rng(0), run=run)
    assert not any(torch.equal(now, old) for now, old in zip(model.parameters(), before, strict=True))

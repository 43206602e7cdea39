"""Mixed precision: on CUDA only; what it computes is close to float32, and the weights stay float32."""

import numpy as np
import pytest
import torch

from models.fitting import Run, fit
from models.fitting.precision import Precision
from tests.unit.test_fitting import ROWS, network, phase

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

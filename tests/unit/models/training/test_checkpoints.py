"""A training that is broken off anywhere and resumed ends as if nothing had happened; what is another training is refused."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import CheckpointError
from models.training.checkpoints import Checkpoints, SavedTraining
from models.training.devices import Precision
from models.training.loop import Run, fit
from tests.unit.models.training.test_loop import network, phase

ABOUT = {"seed": "1"}


class Broken(Exception):
    """Stands for whatever ends a process."""


def training(directory, every_steps=3, break_at=None, about=ABOUT, changed=None, epochs=3, fused=False):
    """Two phases on one network; the weights, and what was told. Breaks off after `break_at` steps of both."""
    told = []

    def tell(now):
        told.append(now)
        if len(told) == break_at:
            raise Broken

    checkpoints = directory and Checkpoints(directory, about, every_s=1e9, every_steps=every_steps)
    run = Run(checkpoints)
    model, rng = network(), np.random.default_rng(5)
    for name, rate in (("First part", 1e-2), ("second", 3e-3)):
        learnt = {"name": name, "data": (np.arange(4.0),), "settings": "small"} | (changed or {})
        fit(model, phase(model, rate=rate, epochs=epochs, fused=fused)._replace(**learnt), rng, tell, run)
    return [tensor.clone() for tensor in model.state_dict().values()], told


STEPS = 24  # 2 phases of 3 epochs of 4 batches


@given(break_at=st.lists(st.integers(1, STEPS), max_size=3), every_steps=st.integers(1, 7), fused=st.booleans())
@settings(deadline=None, max_examples=30)
def test_broken_off_and_resumed_it_ends_the_same_bit_for_bit(tmp_path_factory, break_at, every_steps, fused):
    expected, whole = training(None, fused=fused)
    assert len(whole) == STEPS
    directory = tmp_path_factory.mktemp("training") / "checkpoints"
    for at in break_at:
        with suppress(Broken):
            training(directory, every_steps, at, fused=fused)
    found, told = training(directory, every_steps, fused=fused)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert told == whole[len(whole) - len(told) :]


def test_it_resumes_at_the_newest_checkpoint_and_runs_no_phase_twice(tmp_path):
    with pytest.raises(Broken):
        training(tmp_path, every_steps=4, break_at=12 + 6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-first-part.safetensors", "2-second.safetensors"]
    _, told = training(tmp_path, every_steps=4)
    assert [(now.phase, now.step) for now in told] == [("second", step) for step in range(5, 13)]
    _, told = training(tmp_path)
    assert told == []
    done = SavedTraining.read((tmp_path / "1-first-part.safetensors").read_bytes())
    assert done.done
    assert not [name for name in done.arrays if name.startswith("adam")]


def test_a_checkpoint_is_due_by_time_as_well(tmp_path):
    seconds = iter(np.arange(0, 100, 0.25))
    checkpoints = Checkpoints(tmp_path, ABOUT, every_s=1.0, clock=lambda: float(next(seconds)))
    assert [checkpoints.due(step) for step in range(1, 6)] == [False, False, False, True, True]
    checkpoints.write(tmp_path / "one", b"1")
    assert not checkpoints.due(7)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"changed": {"settings": "large"}}, "settings small and not large"),
        ({"about": ABOUT | {"seed": "2"}}, "seed 1 and not 2"),
        ({"about": {**ABOUT, "parent": "abc"}}, "parent None and not abc"),
        ({"epochs": 4}, "steps 3 x 4 and not 4 x 4"),
        ({"changed": {"data": (np.arange(1.0, 5.0),)}}, "data "),
        ({"changed": {"data": (np.arange(4.0).reshape(2, 2),)}}, "data "),
    ],
)
@pytest.mark.parametrize("break_at", [5, None])
def test_a_checkpoint_of_another_training_is_refused_by_name_with_the_remedy(tmp_path, changed, what, break_at):
    with suppress(Broken):
        training(tmp_path, break_at=break_at)
    with pytest.raises(CheckpointError) as refusal:
        training(tmp_path, **changed)
    assert what in str(refusal.value)
    assert "another --checkpoints directory" in str(refusal.value)


@pytest.mark.parametrize(("first", "then"), [(None, "float16"), (None, "bfloat16"), ("bfloat16", None), ("float16", "bfloat16")])
def test_a_checkpoint_of_another_precision_is_refused_by_name(tmp_path, first, then):
    def learn(half, tell=lambda _: None):
        precision = Precision(torch.device("cpu"), half and getattr(torch, half))
        model, run = network(), Run(Checkpoints(tmp_path, ABOUT, every_s=0.0), precision=precision)
        fit(model, phase(model), np.random.default_rng(5), tell, run)

    def broken(now):
        if now.step == 2:
            raise Broken

    with pytest.raises(Broken):
        learn(first, broken)
    with pytest.raises(CheckpointError, match=f"precision {first or 'float32'} and not {then or 'float32'}"):
        learn(then)
    learn(first)


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", None])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    with pytest.raises(Broken):
        training(tmp_path, break_at=5)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-9] if content is None else content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        training(tmp_path)


def test_what_was_begun_but_not_finished_beside_a_checkpoint_does_no_harm(tmp_path):
    with pytest.raises(Broken):
        training(tmp_path, break_at=5)
    (tmp_path / "1-first-part.new").write_bytes(b"half")
    expected, _ = training(None)
    found, told = training(tmp_path)
    assert told[0].step == 4
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))

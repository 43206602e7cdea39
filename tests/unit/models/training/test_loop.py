"""The one training loop gives, bit for bit, what the same loop written out plainly gives."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.training.loop import fit
from models.training.phase import Phase

ROWS, DIM = 40, 8


def network(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Embedding(ROWS, DIM), torch.nn.Dropout(0.2), torch.nn.Linear(DIM, 1), torch.nn.Flatten(0))


def phase(model, examples=30, size=8, epochs=3, rate=1e-2, fused=False):
    """Learn a sign of each row; the loss draws from both generators."""
    wanted = torch.arange(ROWS) % 2 * 2.0 - 1

    def batches(rng):
        order = rng.permutation(examples)
        yield from (order[start : start + size] for start in range(0, examples, size))

    def loss(batch, rng):
        weights = torch.from_numpy(rng.random(len(batch))).float()
        rows = torch.from_numpy(batch)
        return (weights * (model(rows) - wanted[rows]).square()).mean()

    return Phase("signs", batches, loss, -(-examples // size), epochs, rate, fused)


def plain(model, todo, rng, told):
    """The loop as one would write it for a single network."""
    optimiser = torch.optim.Adam(model.parameters(), lr=todo.learning_rate, fused=todo.fused or None)
    steps = todo.epochs * todo.per_epoch
    rise = 0.15 if steps == 10 else 0.1
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, todo.learning_rate, total_steps=max(1, steps), pct_start=rise)
    model.train()
    mean, done = None, 0
    for _ in range(todo.epochs):
        for batch in todo.batches(rng):
            optimiser.zero_grad()
            loss = todo.loss(batch, rng)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            rate = schedule.get_last_lr()[0]
            optimiser.step()
            schedule.step()
            mean = loss.item() if mean is None else 0.95 * mean + 0.05 * loss.item()
            done += 1
            told.append((todo.name, done, steps, mean, rate, len(batch)))
    model.eval()


@given(
    seed=st.integers(0, 9),
    examples=st.integers(1, 40),
    size=st.integers(1, 16),
    epochs=st.integers(0, 4),
    rate=st.sampled_from([1e-3, 0.3]),
    fused=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_it_gives_what_the_plain_loop_gives(seed, examples, size, epochs, rate, fused):
    found, expected = [], []
    ours, theirs = network(seed), network(seed)
    torch.manual_seed(seed)
    fit(ours, phase(ours, examples, size, epochs, rate, fused), np.random.default_rng(seed), found.append)
    torch.manual_seed(seed)
    plain(theirs, phase(theirs, examples, size, epochs, rate, fused), np.random.default_rng(seed), expected)
    assert [tuple(now) for now in found] == expected
    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert not ours.training


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 100])
def test_the_learning_rate_rises_to_its_height_and_falls_away(steps):
    model, told = network(), []
    fit(model, phase(model, examples=8, epochs=steps, rate=0.1), np.random.default_rng(0), told.append)
    rates = [now.learning_rate for now in told]
    assert len(rates) == steps
    assert max(rates) <= 0.1
    if steps > 20:
        top = int(np.argmax(rates))
        assert rates[top] == pytest.approx(0.1, rel=0.01)
        assert rates[: top + 1] == sorted(rates[: top + 1])
        assert rates[top:] == sorted(rates[top:], reverse=True)
        assert rates[-1] < 1e-3


def test_the_loss_falls():
    model, told = network(), []
    fit(model, phase(model, examples=ROWS, epochs=60), np.random.default_rng(0), told.append)
    assert told[-1].loss < 0.2 * told[0].loss

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codes.codebook import Codebook
from models.codes.drift import Action, Baseline, Decision, Drift, Policy, measure, refresh
from models.codes.reservoir import Reservoir

D, P, N = 32, 4, 6_000
SHAPE = np.arange(1, D + 1) ** -0.7  # dimensions differ in how much they vary, as in learned vectors
AT_ONCE = Policy(patience=1)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def draw(n, seed=0, clusters=60, world=0):
    """Vectors of a world of clusters; the same world whatever the seed."""
    centres = np.random.default_rng(world).standard_normal((clusters, D))
    rng = np.random.default_rng(seed)
    return unit((centres[rng.integers(0, clusters, n)] + 0.7 * rng.standard_normal((n, D))) * SHAPE)


@pytest.fixture(scope="module")
def codebook():
    return Codebook.train(draw(N), P, seed=0)


@pytest.fixture(scope="module")
def baseline(codebook):
    return Baseline.of(codebook, draw(2_000, seed=1))


def turned(vectors, angle, seed=2):
    speeds = np.random.default_rng(seed).standard_normal((D, D))
    values, planes = np.linalg.eig(speeds - speeds.T)
    return unit(vectors @ ((planes * np.exp(values * angle / np.abs(values).max())) @ np.linalg.inv(planes)).real)


def joined(vectors, share):
    """Some replaced by those of clusters that were not there."""
    new = vectors.copy()
    count = int(share * len(vectors))
    new[:count] = draw(count, seed=3, clusters=4, world=9)[:, ::-1]
    return new


DRIFTS = {
    "none": lambda vectors: vectors,
    "a small turn": lambda vectors: turned(vectors, 0.05),
    "new clusters": lambda vectors: joined(vectors, 0.12),
    "another model": lambda vectors: turned(vectors, 3.0),
}


@pytest.mark.parametrize(
    ("drift", "action"), [("none", "none"), ("a small turn", "none"), ("new clusters", "warm"), ("another model", "cold")]
)
def test_each_drift_gets_its_action(codebook, baseline, drift, action):
    vectors = DRIFTS[drift](draw(2_000, seed=1))
    decision = AT_ONCE.choose(measure(codebook, baseline, vectors))
    assert decision.action == action, decision.reason


def test_codes_that_are_not_those_of_the_vectors_ask_for_encoding(codebook, baseline):
    vectors = draw(2_000, seed=1)
    codes = codebook.encode(vectors)
    codes[:100] = codes[100:200]
    drift = measure(codebook, baseline, vectors, codes)
    assert drift.stale == pytest.approx(0.05, abs=0.002)
    assert drift.lost > 0
    assert AT_ONCE.choose(drift).action == "encode"


def test_a_stationary_stream_asks_for_nothing_whatever_is_in_the_reservoir(codebook, baseline):
    asked = []
    for seed in range(12):
        reservoir, vectors = Reservoir(1_500, seed=seed), draw(N, seed=100 + seed)
        reservoir.put([f"i{row}" for row in range(N)], vectors)
        sample = reservoir.sample().vectors
        asked.append(AT_ONCE.choose(measure(codebook, baseline, sample, codebook.encode(sample), seed)).action)
    assert asked == ["none"] * 12


def test_after_a_refresh_nothing_more_is_asked_for(codebook, baseline):
    vectors = joined(draw(4_000, seed=1), 0.12)
    for action in ("warm", "cold"):
        after = refresh(codebook, vectors, action, seed=5)
        again = joined(draw(2_000, seed=6), 0.12)
        assert AT_ONCE.choose(measure(after, Baseline.of(after, vectors[:2_000]), again)).action == "none"


def test_a_warm_start_restores_the_fit_of_a_cold_one_and_keeps_most_codes(codebook):
    before = draw(N, seed=1)
    vectors = joined(before, 0.12)
    warm, cold = (refresh(codebook, vectors, action, seed=5) for action in ("warm", "cold"))
    old, fresh = codebook.encode(before), warm.encode(vectors)
    unseen = joined(draw(N, seed=7), 0.12)
    error = [np.square(book.decode(book.encode(unseen)) - unseen).sum() for book in (codebook, warm, cold)]
    assert error[1] < 1.05 * error[2]
    assert error[0] > 1.3 * error[2]
    assert (fresh != old).mean() < 0.25 < 0.9 < (cold.encode(vectors) != old).mean()
    expected = measure(codebook, Baseline.of(codebook, before), vectors[::2])
    assert expected.changed_bytes == pytest.approx((fresh != codebook.encode(vectors)).mean(), abs=0.05)


def test_none_and_encode_keep_the_codebook_itself(codebook):
    for action in ("none", "encode", Decision("encode", "")):
        assert refresh(codebook, draw(10), action, seed=0) is codebook
    with pytest.raises(ValueError, match="an action is one of"):
        refresh(codebook, draw(10), "lukewarm", seed=0)


def drift_of(relative=1.0, gain=0.0, stale=0.0):
    return Drift(100, 0.1, relative, [1.0], [0], 1.0, 1.0, 0.0, stale, 0.1, 0.2, gain, gain)


def run(policy, drifts):
    before, actions = None, []
    for drift in drifts:
        before = policy.choose(drift, before)
        actions.append(before.action)
    return actions


def test_it_acts_only_when_measurements_in_a_row_ask_for_it():
    strained, calm = drift_of(1.2, 0.1), drift_of()
    assert run(Policy(patience=3), [strained, strained, calm, strained, strained, strained]) == ["none"] * 5 + ["warm"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-0.004, 0.004), min_size=20, max_size=40))
def test_noise_around_a_threshold_does_not_make_it_flap(noise):
    policy = Policy()
    actions = run(policy, [drift_of(policy.relative + one, policy.gain + one) for one in noise])
    changes = sum(one != other for one, other in pairwise(actions))
    assert changes <= 1


def test_a_harder_catalogue_alone_is_no_reason():
    decision = AT_ONCE.choose(drift_of(relative=1.5, gain=0.001))
    assert decision.action == "none"
    assert "no other codebook would fit better" in decision.reason


@pytest.mark.parametrize("n", [0, 1, 2, 20, 255])
@pytest.mark.parametrize("action", ["none", "encode", "warm", "cold"])
def test_tiny_catalogues_are_measured_and_refreshed(n, action):
    codebook = Codebook.train(draw(max(n // 2, 1)), P, seed=0)
    vectors = draw(n, seed=4)
    drift = measure(codebook, Baseline.of(codebook, draw(max(n // 2, 1))), vectors, codebook.encode(vectors))
    assert drift.sample == n
    assert all(np.isfinite(value) for value in (drift.relative, drift.warm_gain, drift.cold_gain, drift.overlap))
    assert AT_ONCE.choose(drift).action in Action.__args__
    after = refresh(codebook, vectors, action, seed=0)
    assert after.encode(vectors).shape == (n, P)
    if action == "cold" and n:
        np.testing.assert_array_equal(after.decode(after.encode(vectors)), vectors)


def test_a_tiny_catalogue_that_stands_still_asks_for_nothing():
    vectors = draw(40)
    codebook = Codebook.train(vectors, P, seed=0)
    assert AT_ONCE.choose(measure(codebook, Baseline.of(codebook, vectors), vectors)).action == "none"


def test_vectors_that_are_not_finite_are_left_out_and_zeros_are_measured(codebook, baseline):
    vectors = np.concatenate([draw(300, seed=1), np.zeros((5, D), np.float32), np.full((3, D), np.nan, np.float32)])
    codes = np.zeros((len(vectors), P), np.uint8)
    drift = measure(codebook, baseline, vectors, codes)
    assert drift.sample == 305
    assert refresh(codebook, vectors, "warm", seed=0).dim == D
    zeros = np.zeros((20, D), np.float32)
    assert measure(Codebook.train(zeros, P, seed=0), Baseline.of(codebook, zeros), zeros).distortion == 0


def test_figures_of_a_codebook_are_those_of_plain_arithmetic(codebook, baseline):
    vectors = draw(500, seed=8)
    codes = codebook.encode(vectors)
    drift = measure(codebook, baseline, vectors, codes)
    errors, lengths = np.square(vectors - codebook.decode(codes)).sum(), np.square(vectors).sum()
    assert drift.distortion == pytest.approx(errors / lengths, rel=1e-5)
    assert drift.relative == pytest.approx(drift.distortion / baseline.distortion)
    used = [np.unique(column, return_counts=True)[1] / 500 for column in codes.T]
    assert drift.dead == [codebook.size - len(shares) for shares in used]
    np.testing.assert_allclose(drift.perplexity, [np.prod(shares**-shares) for shares in used])
    assert drift.stale == 0
    assert measure(codebook, baseline, vectors[:90], codes[:90]).overlap == 1


def test_the_reservoir_keeps_the_newest_vector_of_an_item_and_forgets_deleted_ones():
    reservoir = Reservoir(10)
    reservoir.put(["a", "b", "a"], [[1, 1], [2, 2], [3, 3]])
    reservoir.put(["c"], [[np.nan, 0]])
    reservoir.drop(["b", "unknown"])
    assert reservoir.sample().items == ["a"]
    np.testing.assert_array_equal(reservoir.sample().vectors, [[3, 3]])
    assert len(reservoir) == 1
    reservoir.drop(["a"])
    assert reservoir.sample().vectors.shape == (0, 0)


def test_the_reservoir_is_bounded_and_follows_from_its_seed_in_whatever_order():
    items, vectors = [f"i{row}" for row in range(1_000)], draw(1_000)
    samples = []
    for seed, order in ((0, 1), (0, -1), (1, 1)):
        reservoir = Reservoir(50, seed)
        for start in range(0, 1_000, 70):
            reservoir.put(items[::order][start : start + 70], vectors[::order][start : start + 70])
            assert len(reservoir) <= 50
        samples.append(reservoir.sample())
    assert samples[0].items == samples[1].items != samples[2].items
    np.testing.assert_array_equal(samples[0].vectors, samples[1].vectors)
    assert len(samples[0].items) == 50


def test_every_item_is_as_likely_to_be_in_the_sample_however_often_it_came():
    items = [f"i{row}" for row in range(200)]
    taken = np.zeros(200)
    for seed in range(400):
        reservoir = Reservoir(20, seed)
        reservoir.put(items + items[:50] * 5, np.zeros((450, 1)))
        taken[[int(item[1:]) for item in reservoir.sample().items]] += 1
    assert abs(taken[:50].mean() - taken[50:].mean()) < 4
    assert abs(taken.mean() - 40) < 1e-9


def test_a_half_life_prefers_what_came_last():
    recent = []
    for seed in range(50):
        reservoir = Reservoir(100, seed, half_life=200)
        for start in range(0, 2_000, 100):
            reservoir.put([f"i{row}" for row in range(start, start + 100)], np.zeros((100, 1)))
        recent.append(np.mean([int(item[1:]) >= 1_800 for item in reservoir.sample().items]))
    assert 0.4 < np.mean(recent) < 0.65


@pytest.mark.parametrize("bad", [{"capacity": 0}, {"half_life": 0}])
def test_a_reservoir_of_nothing_is_refused(bad):
    with pytest.raises(ValueError, match="positive"):
        Reservoir(**bad)
    with pytest.raises(ValueError, match="cannot have"):
        Reservoir().put(["a"], np.zeros((2, 3)))

"""How far codes drifted from their vectors, what to do about it, and doing it. Pure: the clock and the loop are others'.

Distortion alone does not say that a refresh helps: a harder catalogue is coded worse by the best codebook too. So each
measurement also tries a warm and a cold start on three quarters of the sample and asks the last quarter what they save:
only a gain on vectors that it was not trained on is a reason to refresh. Figures and thresholds: docs/adr/0010-refresh-policy.md.
"""

from typing import Literal, get_args

import msgspec
import numpy as np

from models.codes.codebook import Codebook, Codes, Floats

QUERIES = 256  # vectors of the sample that overlap is measured with
DEPTH = 100
LEAST = 0.01  # of the squared length: a smaller baseline counts as this, where nearly every vector is its own centroid
TRIAL = 8  # vectors: of fewer nothing is tried
SEEN = 0.75  # of the sample train a trial, the others judge it
COLD_TRIAL_ROUNDS = 10

Action = Literal["none", "encode", "warm", "cold"]


class Baseline(msgspec.Struct, frozen=True):
    """What a generation was when it was made, on a sample of that moment: stored with it."""

    distortion: float = 0.0  # mean squared error of a code by mean squared length of a vector
    overlap: float = 1.0
    perplexity: float = 1.0  # mean of the sub-spaces
    items: int = 0

    @classmethod
    def of(cls, codebook: Codebook, vectors: Floats) -> "Baseline":
        """The baseline of a codebook on a reservoir's vectors (m, D); later drift is to be measured on that reservoir."""
        vectors = _finite(vectors, codebook)
        if not len(vectors):
            return cls()
        codes = codebook.encode(vectors)
        perplexity = float(_perplexity(codebook, codes).mean())
        return cls(_distortion(codebook, vectors, codes), _overlap(codebook, vectors, codes, 0), perplexity, len(vectors))


class Drift(msgspec.Struct, frozen=True):
    """One measurement; shares are of 1. Of an empty sample: as if nothing had drifted."""

    sample: int  # vectors measured
    distortion: float  # of the codes that the vectors would get now, by squared length
    relative: float  # that by the baseline's
    perplexity: list[float]  # (P,) of the use of codes: how many would do if all were used alike
    dead: list[int]  # (P,) codes that no vector of the sample has
    usage: float  # mean perplexity by the baseline's
    overlap: float  # share of the exact 100 best of the sample that scores by stored codes find
    lost: float  # the baseline's overlap less this
    stale: float  # share of items whose stored code is not that of their vector
    changed_bytes: float  # share of bytes of codes that a warm start would change
    changed_items: float  # share of items with such a byte
    warm_gain: float  # share of distortion that a warm start saves, on the quarter of the sample that did not train it
    cold_gain: float  # that of a cold start


def measure(codebook: Codebook, baseline: Baseline, vectors: Floats, codes: Codes | None = None, seed: int = 0) -> Drift:
    """The drift of a reservoir's vectors (m, D) and of their stored codes (m, P), where they are known. About a second of CPU.

    Vectors that are not finite are left out.

    Raises:
        ValueError: vectors of another D, or codes of another shape or beyond C.
    """
    good = _rows(vectors, codebook)
    vectors = np.asarray(vectors, np.float32)[good]
    p = codebook.subspaces
    if not len(vectors):
        return Drift(0, 0.0, 1.0, [1.0] * p, [0] * p, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    present = codebook.encode(vectors)
    stored = present if codes is None else np.asarray(codes)[good]
    distortion = _distortion(codebook, vectors, present)
    perplexity = _perplexity(codebook, present)
    overlap = _overlap(codebook, vectors, stored, seed)
    warm, warm_gain, cold_gain = _try(codebook, vectors, present, seed)
    other = warm.encode(vectors) != present
    return Drift(
        sample=len(vectors),
        distortion=distortion,
        relative=max(distortion, LEAST) / max(baseline.distortion, LEAST),
        perplexity=perplexity.tolist(),
        dead=(_counts(codebook, present) == 0).sum(axis=1).tolist(),
        usage=float(perplexity.mean()) / max(baseline.perplexity, 1.0),
        overlap=overlap,
        lost=baseline.overlap - overlap,
        stale=float((stored != present).any(axis=1).mean()),
        changed_bytes=float(other.mean()),
        changed_items=float(other.any(axis=1).mean()),
        warm_gain=warm_gain,
        cold_gain=cold_gain,
    )


class Decision(msgspec.Struct, frozen=True):
    """What to do now (`action`), and what this measurement alone asks for (`wanted`), the `in_a_row`-th time."""

    action: Action
    reason: str
    wanted: Action = "none"
    in_a_row: int = 0


class Policy(msgspec.Struct, frozen=True):
    """When to act. The codes are strained where the fit is worse than the baseline's, and a refresh must also help."""

    relative: float = 1.02  # strained: distortion of so many times the baseline's
    lost: float = 0.05  # strained: so much less overlap than the baseline's
    usage: float = 0.8  # strained: perplexity of so many times the baseline's
    gain: float = 0.02  # a refresh helps: it saves this share of distortion on vectors that it did not see
    colder: float = 0.03  # cold, not warm: where that saves so much more
    stale: float = 0.001  # encode: more items than this have a code that is not theirs
    most_changed: float = 0.5  # of the bytes: a warm start that changes more has nothing left to spare a cold one
    ease: float = 0.5  # by which a threshold's distance from rest shrinks once it was passed
    patience: int = 2  # measurements in a row that must ask for the same before it is done

    def choose(self, drift: Drift, before: Decision | None = None) -> Decision:
        """What to do after this measurement. `before` is the last decision about the same generation, None after a refresh.

        Two things keep it from flapping: it acts only when `patience` measurements in a row ask for an action, and once one
        did, the next need only pass the thresholds `ease` nearer to rest. After a refresh the baseline is a new one.
        """
        easier = before is not None and before.wanted != "none"
        wanted, reason = self._wanted(drift, self.ease if easier else 1.0)
        if wanted == "none":
            return Decision("none", reason)
        in_a_row = 1 + (before.in_a_row if before is not None and before.wanted != "none" else 0)
        if in_a_row < self.patience:
            return Decision("none", f"{reason}; asked for {in_a_row} of {self.patience} times: {wanted}", wanted, in_a_row)
        return Decision(wanted, reason, wanted, in_a_row)

    def _wanted(self, drift: Drift, ease: float) -> tuple[Action, str]:
        strained = self._strain(drift, ease)
        gain = max(drift.warm_gain, drift.cold_gain)
        if strained and gain >= self.gain * ease:
            dear = drift.changed_bytes > self.most_changed and drift.cold_gain > drift.warm_gain
            if dear or drift.cold_gain - drift.warm_gain >= self.colder:
                return "cold", f"{strained}; a cold start saves {drift.cold_gain:.1%} of it, a warm one {drift.warm_gain:.1%}"
            return "warm", f"{strained}; a warm start saves {drift.warm_gain:.1%} of it and changes {drift.changed_bytes:.1%} of the bytes"
        if drift.stale > self.stale * ease:
            return "encode", f"{drift.stale:.2%} of the items have a code that is not that of their vector"
        if strained:
            return "none", f"{strained}, but no other codebook would fit better (it would save {gain:.1%})"
        return "none", f"distortion is {drift.relative:.2f} of the baseline's: the codes fit their vectors"

    def _strain(self, drift: Drift, ease: float) -> str:
        if drift.relative >= 1 + (self.relative - 1) * ease:
            return f"distortion is {drift.relative:.2f} of the baseline's"
        if drift.lost >= self.lost * ease:
            return f"overlap with exact search fell by {drift.lost:.2f} to {drift.overlap:.2f}"
        if drift.usage <= 1 - (1 - self.usage) * ease:
            return f"the perplexity of codes is {drift.usage:.2f} of the baseline's"
        return ""


def refresh(codebook: Codebook, vectors: Floats, action: str | Decision, seed: int) -> Codebook:
    """The codebook after an action on vectors (n, D): the same object for none and encode, else one trained on them.

    The new codes are its `encode(vectors)`. Vectors that are not finite are not trained on.

    Raises:
        ValueError: vectors of another D, or no `Action`.
    """
    action = action.action if isinstance(action, Decision) else action
    if action not in get_args(Action):
        raise ValueError(f"an action is one of {', '.join(get_args(Action))}, got {action}")
    vectors = _finite(vectors, codebook)
    if action in ("none", "encode") or not len(vectors):
        return codebook
    return Codebook.train(vectors, codebook.subspaces, seed, start=codebook if action == "warm" else None)


def _try(codebook: Codebook, vectors: Floats, codes: Codes, seed: int) -> tuple[Codebook, float, float]:
    """A warm start on a part of the vectors, and what it and a cold one save on the others."""
    n = len(vectors)
    if n < TRIAL:
        return codebook, 0.0, 0.0
    order = np.random.default_rng(seed).permutation(n)
    seen, unseen = vectors[np.sort(order[: int(n * SEEN)])], np.sort(order[int(n * SEEN) :])
    held = vectors[unseen]
    now = _distortion(codebook, held, codes[unseen])
    warm = Codebook.train(seen, codebook.subspaces, seed, start=codebook)
    cold = Codebook.train(seen, codebook.subspaces, seed, rounds=COLD_TRIAL_ROUNDS)
    if now < LEAST:  # hardly an error: nothing to save
        return warm, 0.0, 0.0
    warm_gain, cold_gain = (1 - _distortion(trial, held, trial.encode(held)) / now for trial in (warm, cold))
    return warm, warm_gain, cold_gain


def _distortion(codebook: Codebook, vectors: Floats, codes: Codes) -> float:
    length = float(np.square(vectors, dtype=np.float64).sum())
    error = float(np.square(vectors - codebook.decode(codes), dtype=np.float64).sum())
    return error / length if length > 0 else 0.0


def _counts(codebook: Codebook, codes: Codes) -> np.ndarray:
    """How many codes (m, P) name each centroid: (P, C)."""
    return np.stack([np.bincount(numbers, minlength=codebook.size) for numbers in codes.T])


def _perplexity(codebook: Codebook, codes: Codes) -> np.ndarray:
    shares = _counts(codebook, codes) / len(codes)
    found: np.ndarray = np.exp(-(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=1))
    return found


def _overlap(codebook: Codebook, vectors: Floats, codes: Codes, seed: int) -> float:
    """The share of the exact best by inner product that scores of codes find, for queries drawn from the vectors themselves."""
    n = len(vectors)
    k = min(DEPTH, n)
    queries = vectors[np.random.default_rng(seed).choice(n, min(QUERIES, n), replace=False)]
    exact, coded = queries @ vectors.T, queries @ codebook.decode(codes).T  # (Q, m) each
    bests = (np.argpartition(-scores, k - 1, axis=1)[:, :k] for scores in (exact, coded))
    return float(np.mean([len(np.intersect1d(*pair)) / k for pair in zip(*bests, strict=True)]))


def _rows(vectors: Floats, codebook: Codebook) -> np.ndarray:
    """Which rows (m,) of vectors (m, D) are finite; none of an empty sample, whatever its D."""
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or (len(vectors) and vectors.shape[1] != codebook.dim):
        raise ValueError(f"vectors must be (m, {codebook.dim}), got {vectors.shape}")
    return np.asarray(np.isfinite(vectors).all(axis=1))


def _finite(vectors: Floats, codebook: Codebook) -> Floats:
    found: Floats = np.asarray(vectors, np.float32)[_rows(vectors, codebook)]
    return found

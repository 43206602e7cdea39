"""Slow, obvious versions of what the towers compute, in plain loops over numbers: the oracle of the tests."""

from math import exp, log, sqrt

Vector = list[float]


def masked_mean(tokens: list[Vector], mask: list[bool]) -> Vector:
    """Mean (d) of the tokens (T, d) that the mask lets through; zeros where it lets none through."""
    kept = [token for token, here in zip(tokens, mask, strict=True) if here]
    return [sum(token[i] for token in kept) / max(1, len(kept)) for i in range(len(tokens[0]))]


def attend(query: Vector, keys: list[Vector], mask: list[bool]) -> Vector:
    """Attention (T) of a query (d) over keys (T, d): softmax of the scaled products, exactly 0 where masked."""
    scale = sqrt(len(query))
    scores = [sum(a * b for a, b in zip(query, key, strict=True)) / scale for key in keys]
    if not any(mask):
        return [0.0] * len(keys)
    top = max(score for score, here in zip(scores, mask, strict=True) if here)
    raised = [exp(score - top) if here else 0.0 for score, here in zip(scores, mask, strict=True)]
    return [value / sum(raised) for value in raised]


def scatter(attention: Vector, category: list[int], rows: int) -> Vector:
    """Attention (P') over positions, added up for each category (rows)."""
    probability = [0.0] * rows
    for share, row in zip(attention, category, strict=True):
        probability[row] += share
    return probability


def self_attention(queries: list[Vector], keys: list[Vector], values: list[Vector], mask: list[bool]) -> list[Vector]:
    """One head: (T, d) three times, keys that the mask lets through -> (T, d)."""
    mixed = []
    for query in queries:
        shares = attend(query, keys, mask)
        mixed.append([sum(share * value[i] for share, value in zip(shares, values, strict=True)) for i in range(len(query))])
    return mixed


def sampled_softmax(
    query: Vector, candidates: list[Vector], allowed: list[bool], log_q: Vector, own: int, temperature: float, correct: str = "negatives"
) -> float:
    """Cross entropy of candidate `own` among those allowed: the scores of others, of `all` or of none (`none`) less their ln q."""
    scores = []
    for at, (candidate, q) in enumerate(zip(candidates, log_q, strict=True)):
        corrected = correct == "all" or (correct == "negatives" and at != own)
        scores.append(sum(a * b for a, b in zip(query, candidate, strict=True)) / temperature - (q if corrected else 0.0))
    top = max(score for score, here in zip(scores, allowed, strict=True) if here)
    total = sum(exp(score - top) for score, here in zip(scores, allowed, strict=True) if here)
    return log(total) - (scores[own] - top)


def recurrence(kept: list[Vector], added: list[Vector]) -> list[Vector]:
    """h_t = kept_t h_{t-1} + added_t from h_0 = 0, one step after the other: (T, d) twice -> (T, d)."""
    states, state = [], [0.0] * len(kept[0])
    for keep, add in zip(kept, added, strict=True):
        state = [k * h + a for k, h, a in zip(keep, state, add, strict=True)]
        states.append(state)
    return states


def newest(mask: list[bool], count: int) -> list[bool]:
    """Of a mask (T), oldest first, the last `count` that are there."""
    kept = [at for at, here in enumerate(mask) if here][-count:]
    return [at in kept for at in range(len(mask))]

"""Slow, obvious versions of the search unit and its objectives, in plain loops over numbers: the oracle of the tests."""

from itertools import combinations
from math import exp, log, sqrt

from tests.references.towers import Vector, attend

Matrix = list[Vector]


def unit(vector: Vector) -> Vector:
    """The vector at length one; zeros stay zeros."""
    length = sqrt(sum(x * x for x in vector))
    return [x / length for x in vector] if length > 1e-12 else list(vector)


def dot(a: Vector, b: Vector) -> float:
    """Inner product."""
    return sum(x * y for x, y in zip(a, b, strict=True))


def times(matrix: Matrix, vector: Vector) -> Vector:
    """The product of a matrix (d', d) and a vector (d)."""
    return [dot(row, vector) for row in matrix]


def keywords(table: Matrix, ids: list[int]) -> Vector:
    """q_l: the mean of the embeddings of a query's ids, 0 being padding, at length one; zeros where all is padding."""
    kept = [table[i] for i in ids if i != 0]
    return unit([sum(column) / len(kept) for column in zip(*kept, strict=True)]) if kept else [0.0] * len(table[0])


def fused_item(modalities: Matrix, present: list[bool], gate: Matrix, preference: Vector) -> Vector:
    """e_item: modalities (M, d) mixed by a softmax over those present; zeros where none is."""
    scores = [dot(vector, direction) + extra for vector, direction, extra in zip(modalities, gate, preference, strict=True)]
    raised = [exp(score) if here else 0.0 for score, here in zip(scores, present, strict=True)]
    total = sum(raised) or 1.0
    return [sum(r / total * vector[i] for r, vector in zip(raised, modalities, strict=True)) for i in range(len(gate[0]))]


def pair(query: Vector | None, item: Vector | None, share: float, dim: int) -> Vector:
    """s of a step whose query or item may be missing."""
    if query is None and item is None:
        return [0.0] * dim
    if query is None or item is None:
        return list(query or item or ())
    return [share * q + (1 - share) * e for q, e in zip(query, item, strict=True)]


def gsu(target: Vector, history: Matrix, mask: list[bool], query: Matrix, key: Matrix, count: int) -> list[int]:
    """Positions of the `count` best steps by (W_Q t).(W_K s), best first, among those that the mask lets through."""
    asked = times(query, target)
    scored = [(dot(asked, times(key, step)), at) for at, (step, here) in enumerate(zip(history, mask, strict=True)) if here]
    return [at for _, at in sorted(scored, key=lambda one: -one[0])[:count]]


def esu(target: Vector, found: Matrix, weights: dict[str, Matrix], heads: int, empty: Vector) -> Vector:
    """Multi-head attention of a target over found steps; `weights` are those of query, key, value and out."""
    if not found:
        return empty
    wide = len(target) // heads
    asked = times(weights["query"], target)
    keys, values = ([times(weights[name], step) for step in found] for name in ("key", "value"))
    mixed: Vector = []
    for head in range(heads):
        mine = slice(head * wide, (head + 1) * wide)
        shares = attend(asked[mine], [key[mine] for key in keys], [True] * len(keys))
        mixed += [sum(share * value[i] for share, value in zip(shares, values, strict=True)) for i in range(mine.start, mine.stop)]
    return times(weights["out"], mixed)


def cross_entropy(scores: Vector, allowed: list[bool], own: int) -> float:
    """-ln of the softmax share of `own` among the scores that are allowed."""
    top = max(score for score, here in zip(scores, allowed, strict=True) if here)
    total = sum(exp(score - top) for score, here in zip(scores, allowed, strict=True) if here)
    return log(total) - (scores[own] - top)


def next_pair(logits: Matrix, allowed: list[list[bool]], log_q: Matrix) -> float:
    """Mean cross entropy of the first candidate of each row, scores less ln of how often each is drawn."""
    rows = zip(logits, allowed, log_q, strict=True)
    losses = [cross_entropy([a - b for a, b in zip(row, q, strict=True)], may, 0) for row, may, q in rows]
    return sum(losses) / len(losses) if losses else 0.0


def relevance(queries: Matrix, items: Matrix, negatives: list[list[bool]], weight: Vector, temperature: float) -> float:
    """The weighted mean over pairs of -ln of the share of the own item."""
    total = 0.0
    for n, query in enumerate(queries):
        scores = [dot(unit(query), unit(item)) / temperature for item in items]
        total += weight[n] * cross_entropy(scores, [may or m == n for m, may in enumerate(negatives[n])], n)
    return total / max(sum(weight), 1e-9)


def alignment(modalities: list[Matrix], present: list[list[bool]], temperature: float, same: float) -> float:
    """Mean over pairs of modalities of InfoNCE both ways, among items that have both; look-alikes are no negatives."""
    losses = []
    for one, other in combinations(range(len(present[0]) if present else 0), 2):
        kept = [item for item, here in zip(modalities, present, strict=True) if here[one] and here[other]]
        if len(kept) < 2:
            continue
        total = 0.0
        for n, mine in enumerate(kept):
            may = [m == n or all(dot(mine[k], theirs[k]) < same for k in (one, other)) for m, theirs in enumerate(kept)]
            for a, b in ((one, other), (other, one)):
                total += cross_entropy([dot(mine[a], theirs[b]) / temperature for theirs in kept], may, n) / 2
        losses.append(total / len(kept))
    return sum(losses) / len(losses) if losses else 0.0

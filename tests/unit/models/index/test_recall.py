"""What the scan finds of what exact search finds, on drawn and on trained vectors."""

import numpy as np
import pytest

from models.codes.codebook import Codebook
from models.index import Delete, ItemIndex, Sizes, Upsert
from tests.index_cases import chosen, draw, pool, recall
from tests.tiny_bundle import quickly_trained

EXACT, CELLS = Sizes(exact=10**9), Sizes(exact=1_000, cell=256)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def trained(n):
    """Vectors of a trained bundle, and around them, as new items of a catalogue lie around old ones."""
    rng, vectors = np.random.default_rng(0), quickly_trained(0).items.vectors
    spread = vectors.std(axis=0) / 2
    return unit(vectors[rng.integers(0, len(vectors), n)] + spread * rng.standard_normal((n, vectors.shape[1]))).astype(np.float32)


@pytest.mark.parametrize("clusters", [30, 3_000, "trained"])
def test_cells_codes_and_rerank_find_what_exact_search_finds(clusters):
    n = 20_000
    both = trained(n + 64) if clusters == "trained" else unit(draw(n + 64, 1, 32, clusters))
    vectors, queries = both[:n], both[n:]
    codebook = Codebook.train(vectors[:2_000], 4, seed=0)
    names = ["big" if number % 3 else f"middle{number % 7}" for number in range(n)]
    ids = [f"i{number}" for number in range(n)]
    exact, scanned = (ItemIndex(codebook, vectors, ids, names, sizes=sizes) for sizes in (EXACT, CELLS))
    assert recall(pool(scanned, queries, 100), pool(exact, queries, 100)) >= 0.95
    for category in ("big", "middle0"):
        rows = [category] * len(queries)
        assert recall(chosen(scanned, queries, rows, 100), chosen(exact, queries, rows, 100)) >= 0.95
    wanted = dict(pool(exact, queries[:1], 100)[0])
    for item, score in pool(scanned, queries[:1], 100)[0]:  # scores are those of the vectors, not of the codes
        assert score == pytest.approx(wanted.get(item, score), rel=1e-5)


def test_recall_holds_when_much_has_changed():
    n = 12_000
    both = unit(draw(n + 16, 1, 32))
    vectors, queries = both[:n], both[n:]
    codebook = Codebook.train(vectors[:2_000], 4, seed=0)
    ids, names = [f"i{number}" for number in range(n)], ["big"] * n
    exact, scanned = (ItemIndex(codebook, vectors[: n // 2], ids[: n // 2], names[: n // 2], sizes=sizes) for sizes in (EXACT, CELLS))
    codes = codebook.encode(vectors)
    for start in range(n // 2, n, 1_500):  # each time a quarter more, and some of the old ones gone
        changes = [Upsert(ids[m], "big", vectors[m], codes[m], codebook.generation) for m in range(start, start + 1_500)]
        for index in (exact, scanned):
            index.apply([*changes, *(Delete(ids[m]) for m in range(start - n // 2, start - n // 2 + 1_000))])
            index.compact()
    assert len(exact) == len(scanned) == n - 4_000
    rows = ["big"] * len(queries)
    assert recall(chosen(scanned, queries, rows, 100), chosen(exact, queries, rows, 100)) >= 0.95
    assert recall(pool(scanned, queries, 100), pool(exact, queries, 100)) >= 0.95

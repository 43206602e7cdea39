"""Vectors, indexes and changes that the tests of the index share."""

import numpy as np

from models.codes.codebook import Codebook
from models.index import ItemIndex, Sizes, Upsert

D = 16
SCANNED = Sizes(exact=10, cell=64)  # small enough that small indexes are cut and scanned
SIZES = {"exact": Sizes(), "scanned": SCANNED}


def draw(n, seed=0, d=D, clusters=30):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, d))
    return (centres[rng.integers(0, clusters, n)] + 0.6 * rng.standard_normal((n, d))).astype(np.float32)


def upsert(index, item, category, vector, **more):
    return Upsert(item, category, vector, index.codebook.encode(vector[None])[0], index.generation, **more)


def made(n, categories=5, seed=0, **options):
    vectors = draw(n, seed)
    codebook = Codebook.train(draw(1_000, 99), 4, seed=0)
    names = [f"c{number % categories}" for number in range(n)]
    return ItemIndex(codebook, vectors, [f"i{number}" for number in range(n)], names, **options), vectors


def pool(index, vectors, k, exclude=None, where=None):
    view = index.look()
    return view.hits(view.search_pool(vectors, k, exclude, where))


def chosen(index, vectors, categories, k, exclude=None, where=None):
    view = index.look()
    return view.hits(view.search_categories(vectors, categories, k, exclude, where))


def items(hits):
    return [item for item, _ in hits]


def recall(found, wanted):
    return np.mean([len({*items(f)} & {*items(w)}) / len(w) for f, w in zip(found, wanted, strict=True)])

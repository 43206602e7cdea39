"""`python -m bench.footprint ITEMS`: bytes that an item takes in an index, measured in this process; prints JSON."""

import ctypes
import gc
import json
import sys
from contextlib import suppress

import faiss
import psutil

from bench.items import draw
from models.codes.codebook import Codebook
from models.index import ItemIndex, Sizes, bytes_per_item
from research.evaluation.evaluation import peak_bytes

SUBSPACES = 16


def main() -> int:
    count = int(sys.argv[1])
    faiss.omp_set_num_threads(1)
    items = draw("clustered", count)
    codebook = Codebook.train(items.vectors, SUBSPACES, 0, rounds=2)  # any codebook takes the same bytes
    codes = codebook.encode(items.vectors)
    vectors, category = items.vectors, items.category.tolist()
    names = [f"c{number}" for number in range(len(items.sizes))]
    labels = [names[number] for number in category]
    dim = vectors.shape[1]
    del items, category
    before = resident()
    index = ItemIndex(codebook, vectors, [f"item-{number:07d}" for number in range(count)], labels, codes=codes)
    held, peak = resident() - before, peak_bytes() - before
    formula = bytes_per_item(dim, SUBSPACES, exact=count <= Sizes().exact)
    told = {"measured": held / count, "peak": peak / count, "formula": formula, "rows": f"{len(index):,}"}
    print(json.dumps(told))
    return 0


def resident() -> int:
    """Bytes of this process in memory, after giving back what is free."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return psutil.Process().memory_info().rss


if __name__ == "__main__":
    sys.exit(main())

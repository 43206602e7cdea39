"""Searching while items change, the index is compacted and its generation of codes changes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from models.codes.codebook import Codebook
from models.index import Delete, Sizes, Upsert
from tests.index_cases import D, chosen, draw, items, made, pool

STAY, GONE = range(1_000), range(1_000, 1_200)  # rows never changed; rows deleted before the searches begin
SIZES = {"exact": Sizes(), "scanned": Sizes(exact=10, cell=64, recall=2)}


def put(book, item, category, vector):
    return Upsert(item, category, vector, book.encode(vector[None])[0], book.generation)


def change(index, book, vectors, failures):
    """Move and delete the other rows, and check that each change is seen once `apply` has returned."""
    rng = np.random.default_rng(1)
    for turn in range(100):
        rows = rng.integers(1_200, 3_000, 20)
        index.apply([put(book, f"i{row}", f"m{(row + turn) % 3}", vectors[row]) for row in rows[:12]])
        index.apply([Delete(f"i{row}") for row in rows[12:]])
        probe = np.full((1, D), 1 + turn, np.float32)
        index.apply([put(book, "probe", "p", probe[0]), Delete(f"i{rows[0]}")])
        if items(chosen(index, probe, ["p"], 2)[0]) != ["probe"] or f"i{rows[0]}" in index:
            failures.append("a change was not visible after apply")


def search(index, vectors, failures, done, seed):
    """Search until done: each hit is an item of the view, of that category, with its vector's score; codes are of one generation."""
    rng = np.random.default_rng(seed)
    gone, stay = {f"i{row}" for row in GONE}, {f"i{row}": row for row in STAY}
    names = ["c0", "c3", "m1", "c4"]
    while not done.is_set():
        query, view = vectors[rng.integers(0, 3_000, 4)], index.look()
        for categories, found in ((names, view.search_categories(query, names, 700)), (None, view.search_pool(query, 50))):
            for row, hits in enumerate(view.hits(found)):
                wrong = gone & {*items(hits)} or len({*items(hits)}) != len(hits)
                numbers = found.numbers[row, : len(hits)]
                wrong |= not np.allclose(view.vectors(numbers) @ query[row], found.scores[row, : len(hits)], atol=1e-3)
                lists = {view.category_name(number) for number in np.unique(view.category_numbers(numbers)).tolist()}
                if categories is not None:
                    wrong |= not lists <= {categories[row]}
                    wrong |= categories[row][0] == "c" and len(stay.keys() & {*items(hits)}) != len(STAY) // 5
                if wrong:
                    failures.append((categories and categories[row], lists, len(hits)))
                if (view.codes(numbers) != view.codebook.encode(view.vectors(numbers))).any():
                    failures.append("codes of another generation")


def compact(index, done):
    while not done.is_set():
        index.compact()


def alternate(index, book, done):
    """Let another generation serve now and then, made anew each time."""
    first = index.generation
    while not done.is_set():
        index.hold(book)
        index.serve(book.generation)
        index.serve(first)
        index.drop(book.generation)


@pytest.mark.parametrize("size", SIZES)
def test_searching_while_everything_changes(size):
    index, vectors = made(3_000, sizes=SIZES[size])
    first, second = index.codebook, Codebook.train(draw(1_000, 98), 4, seed=1)
    index.apply([Delete(f"i{row}") for row in GONE])
    failures, done = [], threading.Event()
    work = [
        (search, (index, vectors, failures, done, 1)),
        (search, (index, vectors, failures, done, 2)),
        (compact, (index, done)),
        (alternate, (index, second, done)),
    ]
    with ThreadPoolExecutor(len(work)) as threads:
        running = [threads.submit(function, *arguments) for function, arguments in work]
        try:
            change(index, first, vectors, failures)
        finally:
            done.set()
        for task in running:
            task.result(30)
    assert failures == []
    before = pool(index, vectors[:3], 200)
    index.compact()
    assert [items(hits) for hits in pool(index, vectors[:3], 200)] == [items(hits) for hits in before]

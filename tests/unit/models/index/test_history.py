"""Any history of an index equals a dictionary searched by the slow reference."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from models.codes.codebook import Codebook
from models.index import Delete, ItemIndex, Sizes, Upsert, Where
from tests.references import search as reference_search

D = 6
NAMES = [f"i{number}" for number in range(60)]
BOOKS = [Codebook.train(np.random.default_rng(seed).integers(-3, 4, (8, D)).astype(np.float32), 2, seed=0) for seed in range(3)]
Vector = st.lists(st.integers(-2, 2), min_size=D, max_size=D).map(lambda values: np.array(values, np.float32))
Price = st.integers(0, 3).map(float)
Filter = st.builds(Where, st.none() | Price, st.none() | Price, st.booleans())
MODES = {
    "exact": Sizes(segment=8),
    "scanned": Sizes(exact=4, cell=8, recall=0.5, segment=8),
    "scanned whole": Sizes(exact=0, cell=8, recall=2, segment=8),
}


class History(RuleBasedStateMachine):
    """Small whole numbers: scores are exact whatever the order of summation, so equal means equal, ties included."""

    @initialize(mode=st.sampled_from(sorted(MODES)), n=st.integers(0, 60), seed=st.integers(0, 9))
    def start(self, mode, n, seed):
        self.mode, rng = mode, np.random.default_rng(seed)
        vectors = rng.integers(-2, 3, (n, D)).astype(np.float32)
        lists, codes = ["abc"[number] for number in rng.integers(0, 3, n) // 2 * 2], BOOKS[0].encode(vectors)
        self.index = ItemIndex(BOOKS[0], vectors, NAMES[:n], lists, sizes=MODES[mode])
        self.held = {BOOKS[0].generation: BOOKS[0]}
        self.items = {
            item: (category, vector, 0.0, True, {BOOKS[0].generation: code})
            for item, category, vector, code in zip(NAMES, lists, vectors, codes, strict=False)
        }

    @rule(
        names=st.lists(st.sampled_from(NAMES), max_size=6),
        category=st.sampled_from("abcd"),
        vector=Vector,
        price=Price,
        available=st.booleans(),
        data=st.data(),
    )
    def put(self, names, category, vector, price, available, data):
        given = data.draw(st.sampled_from(sorted(self.held)))
        code = np.array(data.draw(st.lists(st.integers(0, 7), min_size=2, max_size=2)), np.uint8)
        self.index.apply([Upsert(name, category, vector, code, given, price, available) for name in names])
        codes = {name: code if name == given else book.encode(vector[None])[0] for name, book in self.held.items()}
        self.items.update({name: (category, vector, price, available, dict(codes)) for name in names})

    @rule(names=st.lists(st.sampled_from(NAMES), max_size=25))
    def drop_items(self, names):
        self.index.apply([Delete(name) for name in names])
        for name in names:
            self.items.pop(name, None)

    @rule()
    def compact(self):
        self.index.compact()
        assert self.index.changes == 0

    @rule(book=st.sampled_from(BOOKS), changed=st.sets(st.sampled_from(NAMES), max_size=9), keep=st.booleans())
    def hold(self, book, changed, keep):
        kept = self.index.generation if keep else None
        given = {name: np.array([n % 8, 3], np.uint8) for n, name in enumerate(sorted(changed))}
        self.index.hold(book, given, kept)
        self.held[book.generation] = book
        for name, (_, vector, _, _, codes) in self.items.items():
            codes[book.generation] = given[name] if name in given else codes[kept] if kept else book.encode(vector[None])[0]

    @rule(data=st.data())
    def serve(self, data):
        generation = data.draw(st.sampled_from(sorted(self.held)))
        self.index.serve(generation)
        assert self.index.generation == generation

    @precondition(lambda self: len(self.held) > 1)
    @rule(data=st.data())
    def drop(self, data):
        generation = data.draw(st.sampled_from(sorted(self.held.keys() - {self.index.generation})))
        self.index.drop(generation)
        del self.held[generation]
        for item in self.items.values():
            item[4].pop(generation, None)

    @rule()
    def save_and_load(self):
        with tempfile.TemporaryDirectory() as directory:
            self.index.save(Path(directory) / "index", b"offsets")
            self.index, extra = ItemIndex.load(Path(directory) / "index", MODES[self.mode])
        assert extra == b"offsets"

    @rule(
        vector=Vector,
        k=st.sampled_from([1, 3, 12, 100]),
        excluded=st.lists(st.sets(st.sampled_from(NAMES)), min_size=4, max_size=4),
        where=st.none() | Filter,
    )
    def search(self, vector, k, excluded, where):
        view, queries, lists = self.index.look(), np.stack([vector] * 4), ["a", "b", "c", "nowhere"]
        for categories in (None, lists):
            found = (
                view.search_pool(queries, k, excluded, where)
                if categories is None
                else view.search_categories(queries, categories, k, excluded, where)
            )
            for row, hits in enumerate(view.hits(found)):
                self.compare(hits, vector, k, categories and categories[row], excluded[row], where)

    def compare(self, hits, vector, k, category, excluded, where):
        passing = {
            item: (category, stored)
            for item, (category, stored, price, available, _) in self.items.items()
            if where is None or bool(where.passes(np.float32([price]), np.array([available]))[0])
        }
        every = reference_search.search(passing, vector, len(NAMES), category, excluded)
        if self.mode == "exact" or (self.mode == "scanned whole" and len(every) <= k + 24):
            assert hits == every[:k]
        assert {*hits} <= {*every}
        assert len({*hits}) == len(hits) == min(k, len(every))
        assert hits == sorted(hits, key=lambda hit: (-hit[1], hit[0]))

    @invariant()
    def holds_what_was_put(self):
        if not hasattr(self, "index"):
            return
        index, view, names = self.index, self.index.look(), sorted(self.items)
        assert len(index) == len(view) == len(self.items)
        assert index.categories == sorted({item[0] for item in self.items.values()})
        assert sorted(index.held) == sorted(self.held)
        numbers = view.numbers(names)
        assert (view.numbers(NAMES) >= 0).sum() == len(names)
        assert view.names(numbers) == names
        assert [view.category_name(number) for number in view.category_numbers(numbers).tolist()] == [self.items[name][0] for name in names]
        assert view.vectors(numbers).tolist() == [self.items[name][1].tolist() for name in names]
        assert view.codes(numbers).tolist() == [self.items[name][4][view.generation].tolist() for name in names]
        assert view.codebook.generation == view.generation == index.generation


History.TestCase.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
TestHistory = History.TestCase

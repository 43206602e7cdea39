import numpy as np
import pytest

from models.codes.codebook import Codebook
from models.errors import GenerationError
from models.index import Delete, ItemIndex, Sizes, Upsert, Where, bytes_per_item, snapshots
from tests.index_cases import SCANNED, SIZES, D, chosen, draw, items, made, pool, upsert
from tests.references import search as reference_search


@pytest.mark.parametrize("n", [0, 1, 3, 200, 300])
@pytest.mark.parametrize("size", SIZES)
def test_small_pools(n, size):
    index, vectors = made(n, sizes=SIZES[size])
    query = draw(2, 5)
    assert len(index) == len(index.look()) == n
    assert index.categories == sorted({f"c{number % 5}" for number in range(n)})
    stored = {f"i{row}": (f"c{row % 5}", vector) for row, vector in enumerate(vectors)}
    for row, hits in enumerate(pool(index, query, 10)):
        assert items(hits) == items(reference_search.search(stored, query[row], 10))
    for row, hits in enumerate(chosen(index, query, ["c0", "none"], 10)):
        assert items(hits) == items(reference_search.search(stored, query[row], 10, ["c0", "none"][row]))


def test_a_pool_that_starts_empty_fills():
    index, _ = made(0)
    vector = draw(1, 4)[0]
    index.apply([upsert(index, "new", "c9", vector)])
    assert len(index) == 1
    assert "new" in index
    assert index.category_of("new") == "c9"
    [(item, score)] = chosen(index, vector[None], ["c9"], 5)[0]
    assert (item, pytest.approx(score, rel=1e-5)) == ("new", float(vector @ vector))
    assert chosen(index, vector[None], ["c0"], 5) == [[]]
    index.compact()
    assert items(pool(index, vector[None], 5)[0]) == ["new"]


@pytest.mark.parametrize("size", SIZES)
def test_excluded_items_are_replaced_by_others(size):
    index, vectors = made(4_000, sizes=SIZES[size])
    query = vectors[:2]
    index.apply([upsert(index, "fresh", "c0", vectors[0] * 3)])
    best = items(chosen(index, query[:1], ["c0"], 700)[0])
    exclude = {*best[:650], "never seen"}
    hits = chosen(index, np.repeat(query[:1], 2, axis=0), ["c0", "c0"], 20, [exclude, set()])
    assert len({*items(hits[1])} & {*best[:20]}) >= 19  # of 20 fewer are compared exactly than of 700
    assert len(hits[0]) == 20
    assert not exclude & {*items(hits[0])}
    assert "fresh" in exclude
    assert pool(index, query[:1], 1, [{"fresh"}])[0][0][0] != "fresh"
    everything = {f"i{number}" for number in range(4_000)} | {"fresh"}
    assert pool(index, query, 5, [everything, everything - {"i7"}])[0] == []
    assert items(pool(index, query, 5, [everything, everything - {"i7"}])[1]) == ["i7"]


@pytest.mark.parametrize("size", SIZES)
def test_exclusions_as_numbers_mean_the_same(size):
    index, vectors = made(2_000, sizes=SIZES[size])
    view = index.look()
    names = [f"i{number}" for number in range(0, 2_000, 3)] * 2 + ["unknown"]
    for search in (lambda e: view.search_pool(vectors[:3], 50, e), lambda e: view.search_categories(vectors[:3], ["c0"] * 3, 50, e)):
        by_name, by_number = search([names] * 3), search([view.numbers(names)] * 3)
        assert (by_name.numbers == search(view.excluding([names] * 3)).numbers).all()
        assert (by_name.numbers == by_number.numbers).all()
        assert view.hits(by_name) == view.hits(search([{*names}] * 3))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("compacted", [False, True])
def test_deleted_and_moved_items_are_gone_from_where_they_were(size, compacted):
    index, vectors = made(1_000, sizes=SIZES[size])
    before = index.look()
    index.apply([Delete("i0"), Delete("unknown"), upsert(index, "i5", "c1", vectors[5]), upsert(index, "i10", "c0", vectors[10] * 2)])
    if compacted:
        index.compact()
    assert len(index) == 999
    found = chosen(index, vectors[[0, 5, 5, 10]], ["c0", "c0", "c1", "c0"], 300)
    assert "i0" not in items(found[0])
    assert "i5" not in items(found[1])
    assert items(found[2]).count("i5") == 1
    assert dict(found[3])["i10"] == pytest.approx(2 * float(vectors[10] @ vectors[10]), rel=1e-5)
    assert [index.category_of(item) for item in ("i0", "i5", "i10")] == [None, "c1", "c0"]
    assert "i0" not in index
    assert "i0" not in items(pool(index, vectors[:1], 1_000)[0])
    index.apply([upsert(index, "i0", "c2", vectors[0])])
    assert index.category_of("i0") == "c2"
    assert len(index) == 1_000
    assert items(before.hits(before.search_categories(vectors[:1], ["c0"], 200))[0]).count("i0") == 1  # that moment stays


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0.01, 0.3])
def test_filters_are_applied_in_the_search(size, share):
    index, vectors = made(3_000, sizes=SIZES[size])
    rng = np.random.default_rng(1)
    prices, available = rng.uniform(0, 1, 3_000).astype(np.float32), rng.random(3_000) < 0.7
    index.apply([upsert(index, f"i{n}", f"c{n % 5}", vectors[n], price=prices[n], available=bool(available[n])) for n in range(3_000)])
    index.compact()
    index.apply([Delete("i1"), upsert(index, "i2", "c2", vectors[2], price=2.0), upsert(index, "i3", "c3", vectors[3], price=share / 2)])
    available[[1, 2, 3]], prices[[1, 2, 3]] = [False, True, True], [0, 2, share / 2]
    where = Where(least_price=0.001, most_price=share, available=True)
    passing = (prices >= 0.001) & (prices <= share) & available
    stored = {f"i{n}": (f"c{n % 5}", vectors[n]) for n in np.flatnonzero(passing)}
    hits = pool(index, vectors[:4], 10, [{"i3"}] * 4, where)
    named = chosen(index, vectors[:4], ["c0", "c1", "c2", "c3"], 10, None, where)
    for row in range(4):
        for found, category, exclude in ((hits[row], None, {"i3"}), (named[row], f"c{row}", ())):
            wanted = reference_search.search(stored, vectors[row], 10, category, exclude)
            assert len(found) == len(wanted)
            assert {*items(found)} <= {*stored} - {*exclude}
            assert len({*items(found)} & {*items(wanted)}) >= len(wanted) - 2
    assert pool(index, vectors[:1], 5, None, Where()) == pool(index, vectors[:1], 5)
    assert pool(index, vectors[:1], 5, None, Where(least_price=3)) == [[]]


def test_ties_are_settled_by_item_id_also_at_the_last_place():
    index, _ = made(0)
    vector = np.ones(D, np.float32)
    index.apply([upsert(index, f"t{n:02}", "c", vector) for n in (7, 3, 9, 1, 5)] + [upsert(index, "top", "c", vector * 2)])
    for _ in range(2):
        assert items(pool(index, vector[None], 3)[0]) == ["top", "t01", "t03"]
        assert items(chosen(index, vector[None], ["c"], 4)[0]) == ["top", "t01", "t03", "t05"]
        index.compact()
        index.apply([upsert(index, "t00", "d", vector)])
        index.apply([Delete("t00")])
    index.apply([upsert(index, "t02", "c", vector)])
    assert items(pool(index, vector[None], 4)[0]) == ["top", "t01", "t02", "t03"]


def test_numbers_say_which_items_and_where():
    index, vectors = made(50)
    view = index.look()
    index.apply([Delete("i3"), upsert(index, "new", "c9", vectors[0])])
    numbers = view.numbers(["i0", "i3", "new", "none"])
    assert (numbers >= 0).tolist() == [True, True, False, False]
    assert view.names(numbers[:2]) == ["i0", "i3"]
    assert (view.vectors(numbers) == np.stack([vectors[0], vectors[3], np.zeros(D), np.zeros(D)])).all()
    assert [view.category_name(n) for n in view.category_numbers(numbers[:2]).tolist()] == ["c0", "c3"]
    assert view.category_numbers(numbers[2:]).tolist() == [-1, -1]
    now = index.look()
    assert (now.numbers(["i0", "i3", "new"]) >= 0).tolist() == [True, False, True]
    assert now.numbers(["i0"]) == numbers[:1]
    assert (now.codes(now.numbers(["new", "i0"])) == index.codebook.encode(vectors[[0, 0]])).all()


def test_what_is_already_so_is_no_change():
    index, vectors = made(100)
    index.apply([upsert(index, f"i{row}", f"c{row % 5}", vectors[row]) for row in range(100)])
    index.apply([Delete("unknown")])
    assert index.changes == 0
    index.apply([upsert(index, "i1", "c1", vectors[1], price=1.0)])
    index.apply([upsert(index, "i1", "c1", vectors[1], price=1.0)])
    assert index.changes == 1


def test_the_last_change_of_an_item_wins():
    index, vectors = made(100)
    index.apply([Delete("i1"), upsert(index, "i1", "c9", vectors[1]), upsert(index, "i2", "c9", vectors[2]), Delete("i2")])
    assert index.category_of("i1") == "c9"
    assert index.category_of("i2") is None
    index.apply([Delete(f"i{row}") for row in range(100)])
    assert len(index) == 0
    assert index.categories == []
    assert pool(index, vectors[:1], 3) == [[]]


def test_what_does_not_belong_is_refused_and_nothing_is_applied():
    index, vectors = made(10)
    other = Codebook.train(draw(500, 7), 4, seed=0)
    good = upsert(index, "good", "c0", vectors[0])
    with pytest.raises(GenerationError) as caught:
        index.apply([good, Upsert("x", "c0", vectors[0], other.encode(vectors[:1])[0], other.generation)])
    assert (caught.value.given, caught.value.held) == (other.generation, (index.generation,))
    for bad in (
        good._replace(vector=vectors[0][:3]),
        good._replace(vector=vectors[0] * np.nan),
        good._replace(code=good.code[:1]),
        good._replace(price=float("inf")),
        good._replace(price=1e308),
    ):
        with pytest.raises(ValueError, match="must be"):
            index.apply([good, bad._replace(item="bad")])
    with pytest.raises(ValueError, match="parts"):
        index.apply([good._replace(parts=vectors[1])])
    assert "good" not in index


def test_wrong_queries_are_refused():
    index, vectors = made(10)
    view = index.look()
    for wrong in (
        lambda: view.search_pool(vectors[:, :3], 1),
        lambda: view.search_pool(vectors * np.nan, 1),
        lambda: view.search_pool(vectors, 0),
        lambda: view.search_pool(vectors, 1, [set()]),
        lambda: view.search_categories(vectors, ["c0"], 1),
        lambda: ItemIndex(index.codebook, vectors[:2], ["a", "a"], ["c", "c"]),
        lambda: ItemIndex(index.codebook, vectors[:2], ["a"], ["c", "c"]),
        lambda: ItemIndex(index.codebook, vectors[:2, :3], ["a", "b"], ["c", "c"]),
    ):
        with pytest.raises(ValueError, match=r"must be|vectors|names"):
            wrong()
    assert view.search_pool(np.empty((0, D), np.float32), 3).numbers.shape == (0, 3)
    assert view.search_categories(np.empty((0, D), np.float32), [], 3).scores.shape == (0, 3)


@pytest.mark.parametrize("d", [8, 9, 13, 33, 256])
def test_any_dimension_is_scanned(d):
    vectors = draw(2_000, 1, d)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = ItemIndex(Codebook.train(vectors[:300], 1, seed=0), vectors, [f"i{n}" for n in range(2_000)], ["c"] * 2_000, sizes=SCANNED)
    hits = chosen(index, vectors[:20], ["c"] * 20, 5)
    assert [dict(found)[f"i{n}"] for n, found in enumerate(hits)] == pytest.approx([float(v @ v) for v in vectors[:20]], rel=1e-4)


def test_apply_compacts_in_the_end_where_nobody_does():
    index, _ = made(0, sizes=Sizes(exact=1_000, segment=500))
    vectors = draw(5_000, 3)
    codes = index.codebook.encode(vectors)
    due = []
    for start in range(0, 5_000, 200):
        rows = range(start, start + 200)
        index.apply([Upsert(f"n{row}", "c", vectors[row], codes[row], index.generation) for row in rows])
        due.append(index.compaction_due)
    assert len(index) == 5_000
    assert due[3]
    assert index.changes < 2_500


def test_compaction_cuts_anew_only_what_outgrew_its_cells():
    index, vectors = made(2_000, categories=2, sizes=SCANNED)
    before = index._snapshot.base.scan.cells
    index.apply([upsert(index, f"n{n}", "c0", vectors[n] + 0.1) for n in range(20)] + [upsert(index, "lonely", "new", vectors[0])])
    index.compact()
    after = index._snapshot.base.scan.cells
    assert (after.centroids[: len(before.centroids)] == before.centroids).all()
    assert len(after.centroids) == len(before.centroids) + 1
    index.apply([upsert(index, f"m{n}", "c1", vectors[n] - 0.1) for n in range(1_200)])
    index.compact()
    grown = np.diff(index._snapshot.base.scan.cells.first)
    assert grown[0] == np.diff(before.first)[0]
    assert grown[1] > 1.5 * np.diff(before.first)[1]


@pytest.mark.parametrize("size", SIZES)
def test_what_changes_during_a_compaction_is_kept(size, monkeypatch):
    index, vectors = made(500, sizes=SIZES[size])
    index.apply([upsert(index, f"old{n}", "c0", vectors[n]) for n in range(3)] + [Delete("i9")])
    fold = snapshots.folded

    def folded(*arguments):
        base = fold(*arguments)
        index.apply([Delete("i0"), Delete("old0"), upsert(index, "i1", "moved", vectors[1]), upsert(index, "old1", "moved", vectors[1])])
        index.apply([upsert(index, "fresh", "c0", vectors[0])])
        index.apply([upsert(index, "i9", "back", vectors[9])])
        return base

    monkeypatch.setattr(snapshots, "folded", folded)
    index.compact()
    names = ["i0", "old0", "i1", "old1", "fresh", "i9", "old2"]
    assert [index.category_of(name) for name in names] == [None, None, "moved", "moved", "c0", "back", "c0"]
    assert len(index) == 502
    assert {*items(chosen(index, vectors[:1], ["moved"], 9)[0])} == {"i1", "old1"}
    assert {"i0", "old0", "i1", "old1"}.isdisjoint(items(chosen(index, vectors[:1], ["c0"], 500)[0]))
    monkeypatch.undo()
    index.compact()
    assert [index.category_of(name) for name in names] == [None, None, "moved", "moved", "c0", "back", "c0"]


def test_bytes_per_item_are_those_of_the_arrays():
    n, d = 20_000, 32
    vectors = draw(n, 1, d)
    index = ItemIndex(Codebook.train(vectors[:300], 4, seed=0), vectors, [f"i{m}" for m in range(n)], ["c"] * n, sizes=SCANNED)
    base, told = index._snapshot.base, bytes_per_item(d, 4, cell=64)
    assert base.rows.vectors.nbytes / n == told["vectors"]
    assert base.rows.codes[index.generation].nbytes / n == told["codes"]
    assert 2 * base.scan.codes.nbytes / n == told["scan codes, ordered and packed"]
    assert base.scan.cells.centroids.nbytes * 2 / n == pytest.approx(told["centroids"], rel=0.05)

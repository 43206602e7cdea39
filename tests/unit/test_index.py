import threading
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import reference_search
from models.codebook import Codebook
from models.index import Delete, GenerationMismatch, ItemIndex, Upsert

D = 16


@pytest.fixture(autouse=True)
def one_thread():
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


def draw(n, seed=0, d=D, clusters=30):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, d))
    return (centres[rng.integers(0, clusters, n)] + 0.6 * rng.standard_normal((n, d))).astype(np.float32)


def upsert(index, item, category, vector):
    return Upsert(item, category, vector, index.codebook.encode(vector[None])[0], index.generation)


def made(n, categories=5, seed=0, **options):
    vectors = draw(n, seed)
    codebook = Codebook.train(draw(1_000, 99), 4, seed=0)
    names = [f"c{number % categories}" for number in range(n)]
    return ItemIndex(codebook, vectors, [f"i{number}" for number in range(n)], names, **options), vectors


def items(hits):
    return [item for item, _ in hits]


@pytest.mark.parametrize("n", [0, 1, 3, 200, 300])
def test_small_pools(n):
    index, vectors = made(n)
    query = draw(2, 5)
    assert len(index) == n
    assert index.categories == sorted({f"c{number % 5}" for number in range(n)})
    stored = {f"i{row}": (f"c{row % 5}", vector) for row, vector in enumerate(vectors)}
    for row, hits in enumerate(index.search_pool(query, 10)):
        assert items(hits) == items(reference_search.search(stored, query[row], 10))
    for row, hits in enumerate(index.search_categories(query, ["c0", "none"], 10)):
        assert items(hits) == items(reference_search.search(stored, query[row], 10, ["c0", "none"][row]))


def test_a_pool_that_starts_empty_fills():
    index, _ = made(0)
    vector = draw(1, 4)[0]
    index.apply([upsert(index, "new", "c9", vector)])
    assert len(index) == 1
    assert "new" in index
    assert index.category_of("new") == "c9"
    [(item, score)] = index.search_categories(vector[None], ["c9"], 5)[0]
    assert (item, pytest.approx(score, rel=1e-5)) == ("new", float(vector @ vector))
    assert index.search_categories(vector[None], ["c0"], 5) == [[]]
    index.compact()
    assert items(index.search_pool(vector[None], 5)[0]) == ["new"]


def recall(found, wanted):
    return np.mean([len({*items(f)} & {*items(w)}) / len(w) for f, w in zip(found, wanted, strict=True)])


@pytest.mark.parametrize("clusters", [30, 3_000])
def test_codes_and_rerank_find_what_exact_search_finds(clusters):
    n, d = 20_000, 32
    vectors, queries = draw(n, 1, d, clusters), draw(12, 2, d, clusters)
    codebook = Codebook.train(vectors[:8_000], 8, seed=0)
    names = ["big" if number % 3 else "small" for number in range(n)]
    ids = [f"i{number}" for number in range(n)]
    exact, coded = (ItemIndex(codebook, vectors, ids, names, exact=size, exact_rows=10**6) for size in (10**6, 100))
    pool = [hits for query in queries for hits in coded.search_pool(query[None], 100)]
    wanted = [hits for query in queries for hits in exact.search_pool(query[None], 100)]
    assert recall(pool, wanted) >= 0.95
    for category in ("big", "small"):
        rows = [category] * len(queries)
        assert recall(coded.search_categories(queries, rows, 100), exact.search_categories(queries, rows, 100)) >= 0.95
    scores = dict(wanted[0])
    for item, score in pool[0]:  # scores are those of the vectors, not of the codes
        assert score == pytest.approx(scores.get(item, score), rel=1e-5)


@pytest.mark.parametrize("size", [10, 10**6])
def test_excluded_items_are_replaced_by_others(size):
    index, vectors = made(4_000, exact=size, exact_rows=10**6)
    query = vectors[:2]
    index.apply([upsert(index, "fresh", "c0", vectors[0] * 3)])
    best = items(index.search_categories(query[:1], ["c0"], 700)[0])
    exclude = {*best[:650], "never seen"}
    hits = index.search_categories(np.repeat(query[:1], 2, axis=0), ["c0", "c0"], 20, [exclude, set()])
    assert items(hits[1]) == best[:20]
    assert len(hits[0]) == 20
    assert not exclude & {*items(hits[0])}
    assert "fresh" in exclude
    assert index.search_pool(query[:1], 1, [{"fresh"}])[0][0][0] != "fresh"
    everything = {f"i{number}" for number in range(4_000)} | {"fresh"}
    assert index.search_pool(query, 5, [everything, everything - {"i7"}])[0] == []
    assert items(index.search_pool(query, 5, [everything, everything - {"i7"}])[1]) == ["i7"]


@pytest.mark.parametrize("size", [10, 10**6])
@pytest.mark.parametrize("compacted", [False, True])
def test_deleted_and_moved_items_are_gone_from_where_they_were(size, compacted):
    index, vectors = made(1_000, exact=size, exact_rows=10**6)
    index.apply([Delete("i0"), Delete("unknown"), upsert(index, "i5", "c1", vectors[5]), upsert(index, "i10", "c0", vectors[10] * 2)])
    if compacted:
        index.compact()
    assert len(index) == 999
    found = index.search_categories(vectors[[0, 5, 5, 10]], ["c0", "c0", "c1", "c0"], 300)
    assert "i0" not in items(found[0])
    assert "i5" not in items(found[1])
    assert items(found[2]).count("i5") == 1
    assert dict(found[3])["i10"] == pytest.approx(2 * float(vectors[10] @ vectors[10]), rel=1e-5)
    assert [index.category_of(item) for item in ("i0", "i5", "i10")] == [None, "c1", "c0"]
    assert "i0" not in index
    assert "i0" not in items(index.search_pool(vectors[:1], 1_000)[0])
    index.apply([upsert(index, "i0", "c2", vectors[0])])
    assert index.category_of("i0") == "c2"
    assert len(index) == 1_000


def test_what_is_already_so_is_no_change():
    index, vectors = made(100)
    index.apply([upsert(index, f"i{row}", f"c{row % 5}", vectors[row]) for row in range(100)])
    index.apply([Delete("unknown")])
    assert index._snapshot.changes() == 0


def test_the_last_change_of_an_item_wins():
    index, vectors = made(100)
    index.apply([Delete("i1"), upsert(index, "i1", "c9", vectors[1]), upsert(index, "i2", "c9", vectors[2]), Delete("i2")])
    assert index.category_of("i1") == "c9"
    assert index.category_of("i2") is None
    index.apply([Delete(f"i{row}") for row in range(100)])
    assert len(index) == 0
    assert index.categories == []
    assert index.search_pool(vectors[:1], 3) == [[]]


def test_codes_of_another_generation_are_refused_and_nothing_is_applied():
    index, vectors = made(10)
    other = Codebook.train(draw(500, 7), 4, seed=0)
    good = upsert(index, "good", "c0", vectors[0])
    with pytest.raises(GenerationMismatch) as caught:
        index.apply([good, Upsert("x", "c0", vectors[0], other.encode(vectors[:1])[0], other.generation)])
    assert (caught.value.given, caught.value.expected) == (other.generation, index.generation)
    for bad in (good._replace(vector=vectors[0][:3]), good._replace(vector=vectors[0] * np.nan), good._replace(code=good.code[:1])):
        with pytest.raises(ValueError, match="must be"):
            index.apply([good, bad])
    assert "good" not in index


def test_wrong_queries_are_refused():
    index, vectors = made(10)
    for wrong in (
        lambda: index.search_pool(vectors[:, :3], 1),
        lambda: index.search_pool(vectors * np.nan, 1),
        lambda: index.search_pool(vectors, 0),
        lambda: index.search_pool(vectors, 1, [set()]),
        lambda: index.search_categories(vectors, ["c0"], 1),
        lambda: ItemIndex(index.codebook, vectors[:2], ["a", "a"], ["c", "c"]),
    ):
        with pytest.raises(ValueError, match=r"must be|vectors"):
            wrong()
    assert index.search_pool(np.empty((0, D), np.float32), 3) == []
    assert index.search_categories(np.empty((0, D), np.float32), [], 3) == []


def test_apply_compacts_in_the_end_where_nobody_does():
    index, _ = made(0)
    vectors = draw(20_000, 3)
    codes = index.codebook.encode(vectors)
    due = []
    for start in range(0, 20_000, 2_000):
        rows = range(start, start + 2_000)
        index.apply([Upsert(f"n{row}", "c", vectors[row], codes[row], index.generation) for row in rows])
        due.append(index.compaction_due)
    assert len(index) == 20_000
    assert due[2]
    assert len(index._snapshot.base) > 10_000


Step = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 9), st.sampled_from("abc"), st.lists(st.integers(-3, 3), min_size=D, max_size=D)),
    st.tuples(st.just("drop"), st.integers(0, 9)),
    st.tuples(st.just("compact")),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(Step, max_size=4), max_size=6), st.sampled_from([2, 10**6]), st.integers(1, 12), st.sets(st.integers(0, 9)))
def test_any_history_equals_the_reference(batches, size, k, excluded):
    """Small whole numbers: scores are exact whatever the order of summation, so equal means equal, ties included."""
    index, _ = made(0, exact=size, exact_rows=10**6)
    stored = {}
    exclude = {f"i{number}" for number in excluded}
    query = np.arange(D, dtype=np.float32)[None] % 5 - 2
    for batch in batches:
        changes = []
        for step in batch:
            if step[0] == "put":
                vector = np.array(step[3], np.float32)
                stored[f"i{step[1]}"] = (step[2], vector)
                changes.append(upsert(index, f"i{step[1]}", step[2], vector))
            elif step[0] == "drop":
                stored.pop(f"i{step[1]}", None)
                changes.append(Delete(f"i{step[1]}"))
            else:
                index.compact()
        index.apply(changes)
        assert len(index) == len(stored)
        assert index.categories == sorted({category for category, _ in stored.values()})
        assert index.search_pool(query, k, [exclude])[0] == reference_search.search(stored, query[0], k, None, exclude)
        found = index.search_categories(np.repeat(query, 4, axis=0), [*"abcz"], k, [exclude] * 4)
        assert found == [reference_search.search(stored, query[0], k, category, exclude) for category in "abcz"]


STAY, GONE = range(1_000), range(1_000, 1_200)  # rows never changed; rows deleted before the searches begin


def change(index, vectors, failures):
    """Move and delete the other rows, and check that each change is seen once `apply` has returned."""
    rng = np.random.default_rng(1)
    for turn in range(150):
        rows = rng.integers(1_200, 3_000, 20)
        index.apply([upsert(index, f"i{row}", f"m{(row + turn) % 3}", vectors[row]) for row in rows[:12]])
        index.apply([Delete(f"i{row}") for row in rows[12:]])
        probe = np.full((1, D), 1 + turn, np.float32)
        index.apply([upsert(index, "probe", "p", probe[0]), Delete(f"i{rows[0]}")])
        if items(index.search_categories(probe, ["p"], 2)[0]) != ["probe"] or f"i{rows[0]}" in index:
            failures.append("a change was not visible after apply")


def search(index, vectors, failures, done, seed):
    """Search until done: no deleted row, none twice, none in a wrong category, each with the score of its own vector."""
    rng = np.random.default_rng(seed)
    gone, stay = {f"i{row}" for row in GONE}, {f"i{row}": row for row in STAY}
    names = ["c0", "c3", "m1", "c4"]
    while not done.is_set():
        query = vectors[rng.integers(0, 3_000, 4)]
        for name, hits in zip(names, index.search_categories(query, names, 700), strict=True):
            found = {*items(hits)}
            wrong = [item for item in found if item in gone or (item in stay and f"c{stay[item] % 5}" != name)]
            lost = name[0] == "c" and len(found & stay.keys()) != len(STAY) // 5
            if wrong or lost or len(found) != len(hits):
                failures.append((name, wrong, len(found)))
        for mine, hits in zip(query[:2], index.search_pool(query[:2], 50), strict=True):
            known = [(item, score - float(vectors[stay[item]] @ mine)) for item, score in hits if item in stay]
            failures.extend(hit for hit in known if abs(hit[1]) > 1e-3)
            failures.extend(item for item in items(hits) if item in gone)


def compact(index, done):
    while not done.is_set():
        index.compact()


@pytest.mark.parametrize("size", [50, 10**6])
def test_searching_while_everything_changes(size):
    index, vectors = made(3_000, exact=size, exact_rows=10**6)
    index.apply([Delete(f"i{row}") for row in GONE])
    failures, done = [], threading.Event()
    work = [(search, (index, vectors, failures, done, 1)), (search, (index, vectors, failures, done, 2)), (compact, (index, done))]
    with ThreadPoolExecutor(len(work)) as pool:
        running = [pool.submit(function, *arguments) for function, arguments in work]
        try:
            change(index, vectors, failures)
        finally:
            done.set()
        for task in running:
            task.result(30)
    assert failures == []
    before = index.search_pool(vectors[:3], 200)
    index.compact()
    assert [items(hits) for hits in index.search_pool(vectors[:3], 200)] == [items(hits) for hits in before]

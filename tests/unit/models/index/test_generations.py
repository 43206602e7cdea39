import numpy as np
import pytest

from models.codes.codebook import Codebook
from models.errors import GenerationError
from models.index import ItemIndex, Upsert
from tests.index_cases import draw, made, upsert


def test_codes_of_two_generations_beside_each_other():
    index, vectors = made(300)
    first, second = index.codebook, Codebook.train(draw(1_000, 98), 4, seed=1)
    index.apply([upsert(index, "new", "c0", vectors[0])])
    before, names = index.look(), ["i0", "i7", "new"]
    other = np.array([9, 9, 9, 9], np.uint8)
    index.hold(second, {"i7": other, "unknown": other}, first.generation)
    assert (index.held, index.generation) == ((first.generation, second.generation), first.generation)
    index.serve(second.generation)
    view = index.look()
    codes = first.encode(vectors[[0, 7, 0]])
    assert view.codes(view.numbers(names)).tolist() == [codes[0].tolist(), [9] * 4, codes[2].tolist()]
    assert view.codebook is second
    assert before.codebook is first
    assert (before.codes(before.numbers(names)) == codes).all()
    index.serve(first.generation)
    assert (index.look().codes(view.numbers(names)) == codes).all()


def test_changes_get_codes_of_every_generation_that_is_held():
    index, vectors = made(50)
    first, second = index.codebook, Codebook.train(draw(1_000, 98), 4, seed=1)
    index.hold(second)
    vector = vectors[3] + 1
    mine = np.array([1, 2, 3, 4], np.uint8)
    index.apply([Upsert("a", "c0", vector, mine, second.generation), Upsert("b", "c0", vector, mine, first.generation)])
    for book, wanted in ((first, [first.encode(vector[None])[0], mine]), (second, [mine, second.encode(vector[None])[0]])):
        for _ in range(2):
            index.serve(book.generation)
            view = index.look()
            assert (view.codes(view.numbers(["a", "b"])) == np.stack(wanted)).all()
            index.compact()


def test_what_is_not_held_is_refused():
    index, vectors = made(20)
    other = Codebook.train(draw(1_000, 98), 4, seed=1)
    with pytest.raises(GenerationError):
        index.serve(other.generation)
    with pytest.raises(GenerationError):
        index.hold(other, unchanged_from="none")
    with pytest.raises(ValueError, match="serves"):
        index.drop(index.generation)
    with pytest.raises(ValueError, match="dimensions"):
        index.hold(Codebook.train(draw(300, 1, 8), 4, seed=0))
    with pytest.raises(ValueError, match="bytes"):
        index.hold(Codebook.train(vectors, 2, seed=0), unchanged_from=index.generation)
    with pytest.raises(ValueError, match="code of item"):
        index.hold(other, {"i1": np.zeros(3, np.uint8)})
    index.hold(other)
    index.drop(other.generation)
    index.drop("never there")
    assert index.held == (index.generation,)
    with pytest.raises(GenerationError):
        index.serve(other.generation)


def test_codes_may_stand_for_parts_instead_of_the_vector():
    vectors, parts = draw(100, 1), draw(100, 2, 24)
    first, second = (Codebook.train(parts[:50], 4, seed=seed) for seed in (0, 1))
    second = Codebook.train(parts[50:], 4, seed=0)
    index = ItemIndex(first, vectors, [f"i{n}" for n in range(100)], ["c"] * 100, parts=parts)
    index.apply([Upsert("new", "c", vectors[0], first.encode(parts[:1])[0], first.generation, parts=parts[0])])
    with pytest.raises(ValueError, match="parts"):
        index.apply([Upsert("bad", "c", vectors[0], first.encode(parts[:1])[0], first.generation)])
    index.hold(second)
    index.compact()
    index.serve(second.generation)
    view = index.look()
    assert (view.codes(view.numbers(["i5", "new"])) == second.encode(parts[[5, 0]])).all()
    assert view.dim == vectors.shape[1]

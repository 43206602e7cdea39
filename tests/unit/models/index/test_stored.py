import json

import numpy as np
import pytest

from models.codes.codebook import Codebook
from models.errors import SnapshotError
from models.index import Delete, ItemIndex, Where
from tests.index_cases import SCANNED, SIZES, draw, made, pool, upsert


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n", [0, 700])
def test_a_saved_index_answers_as_before(tmp_path, size, n):
    index, _ = made(n, sizes=SIZES[size])
    other = Codebook.train(draw(1_000, 98), 4, seed=1)
    index.hold(other)
    index.serve(other.generation)
    query = draw(3, 8)
    index.apply([Delete("i1"), upsert(index, "größer\U0001f600", "new", query[0], price=3.0, available=False)])
    index.save(tmp_path / "index", b"offsets")
    loaded, extra = ItemIndex.load(tmp_path / "index", SIZES[size])
    assert extra == b"offsets"
    assert (len(loaded), loaded.held, loaded.generation) == (len(index), index.held, other.generation)
    assert loaded.categories == index.categories
    assert pool(loaded, query, 50) == pool(index, query, 50)
    assert pool(loaded, query, 50, None, Where(available=True)) == pool(index, query, 50, None, Where(available=True))
    view = loaded.look()
    numbers = view.numbers(["größer\U0001f600"])
    assert (view.codes(numbers) == other.encode(query[:1])).all()
    loaded.apply([upsert(loaded, "i1", "c1", query[1]), Delete("größer\U0001f600")])
    loaded.compact()
    assert len(loaded) == n + 1 if n == 0 else len(loaded) == n
    loaded.save(tmp_path / "index")  # over the old one
    assert len(ItemIndex.load(tmp_path / "index")[0]) == len(loaded)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_loading_cuts_nothing_anew(tmp_path):
    index, _ = made(1_000, sizes=SCANNED)
    index.save(tmp_path / "index")
    loaded, _ = ItemIndex.load(tmp_path / "index", SCANNED)
    before, after = index._snapshot.base.scan, loaded._snapshot.base.scan
    for old, new in zip(before.cells, after.cells, strict=True):
        assert np.array_equal(old, new)
    assert np.array_equal(before.codes, after.codes)


def test_what_was_changed_or_is_missing_is_refused(tmp_path):
    index, _ = made(200)
    with pytest.raises(SnapshotError, match=r"manifest.json is missing"):
        ItemIndex.load(tmp_path / "index")
    index.save(tmp_path / "index")
    for name in ("vectors.safetensors", "arrays.safetensors", "names.safetensors", "extra.bin"):
        path = tmp_path / "index" / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if content else b"x")
        with pytest.raises(SnapshotError, match="checksum"):
            ItemIndex.load(tmp_path / "index")
        path.unlink()
        with pytest.raises(SnapshotError, match="missing"):
            ItemIndex.load(tmp_path / "index")
        path.write_bytes(content)
    manifest = tmp_path / "index" / "manifest.json"
    told = json.loads(manifest.read_text())
    for key, value in (("format", 99), ("generation", "another"), ("held", [index.generation, "another"]), ("items", 7), ("dim", "x")):
        manifest.write_text(json.dumps({**told, key: value}))
        with pytest.raises(SnapshotError):
            ItemIndex.load(tmp_path / "index")
    manifest.write_text("{")
    with pytest.raises(SnapshotError, match="unreadable"):
        ItemIndex.load(tmp_path / "index")

"""A bundle that is damaged, or made by hand, is refused with a sentence; it never ends in another error, nor takes memory."""

import shutil
from contextlib import suppress
from hashlib import blake2b

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.bundle import CODEBOOK, FILES, ITEM_VECTORS, MANIFEST, NAMES, POPULAR, WEIGHTS, load, save
from models.errors import BundleError
from stream.serving.snapshot import Saved, Snapshots
from tests.tiny_bundle import quickly_trained


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return save(quickly_trained(1), tmp_path_factory.mktemp("good") / "bundle")


@pytest.fixture
def directory(good, tmp_path):
    return shutil.copytree(good, tmp_path / "bundle")


def manifest_of(directory):
    return msgspec.json.decode((directory / MANIFEST).read_bytes())


def put(directory, name, content):
    """Replace a file, and its checksum too, so that the content itself is looked at."""
    (directory / name).write_bytes(content)
    if name != MANIFEST:
        manifest = manifest_of(directory)
        manifest["files"][name] = blake2b(content, digest_size=16).hexdigest()
        (directory / MANIFEST).write_bytes(msgspec.json.encode(manifest))


def arrays(directory, name, **changed):
    found = safetensors.numpy.load((directory / name).read_bytes()) | changed
    put(directory, name, safetensors.numpy.save({part: array for part, array in found.items() if array is not None}))


def names(directory, **changed):
    put(directory, NAMES, msgspec.msgpack.encode(msgspec.msgpack.decode((directory / NAMES).read_bytes()) | changed))


def manifest(directory, **changed):
    put(directory, MANIFEST, msgspec.json.encode(manifest_of(directory) | changed))


def reshaped(directory, **sizes):
    config = manifest_of(directory)["config"]
    return config | {"network": config["network"] | sizes}


NAN = np.full((72, 16), np.nan, np.float32)
WRONG = {
    "no safetensors": lambda d: put(d, ITEM_VECTORS, b"what"),
    "a header of 2**60 bytes": lambda d: put(d, WEIGHTS, (2**60).to_bytes(8, "little") + b"{}"),
    "no vectors": lambda d: arrays(d, ITEM_VECTORS, vectors=None),
    "vectors that are not numbers": lambda d: arrays(d, ITEM_VECTORS, vectors=NAN),
    "vectors of float64": lambda d: arrays(d, ITEM_VECTORS, vectors=np.zeros((72, 16))),
    "codes beyond the codebook": lambda d: arrays(d, ITEM_VECTORS, codes=np.full((72, 4), 255, np.uint8)),
    "no centroids": lambda d: put(d, CODEBOOK, safetensors.numpy.save({"x": np.zeros(1, np.float32)})),
    "centroids of two axes": lambda d: arrays(d, CODEBOOK, centroids=np.zeros((3, 3), np.float32)),
    "weights that are not numbers": lambda d: arrays(d, WEIGHTS, popularity=np.full(8, np.nan, np.float32)),
    "a weight too many": lambda d: arrays(d, WEIGHTS, other=np.zeros(3, np.float32)),
    "a weight too few": lambda d: arrays(d, WEIGHTS, popularity=None),
    "another weight": lambda d: arrays(d, WEIGHTS, popularity=np.ones(8, np.float32)),
    "names without titles": lambda d: put(d, NAMES, msgspec.msgpack.encode({"items": []})),
    "too few titles": lambda d: names(d, titles=["one"]),
    "ids that are numbers": lambda d: names(d, items=list(range(72))),
    "an id twice": lambda d: names(d, items=["i"] * 72),
    "names that are not MessagePack": lambda d: put(d, NAMES, b"\xc1"),
    "names that are not UTF-8": lambda d: put(d, NAMES, b"\xa1\xff"),
    "popular of numbers": lambda d: put(d, POPULAR, msgspec.msgpack.encode([1, 2])),
    "a manifest that is not UTF-8": lambda d: put(d, MANIFEST, b'{"format": "\xff"}'),
    "a manifest 100,000 deep": lambda d: put(d, MANIFEST, b'{"a": ' + b"[" * 100_000),
    "a generation that is a path": lambda d: manifest(d, generation="x/../../pwned"),
    "another generation": lambda d: manifest(d, generation="0" * 12),
    "a width of 10**9": lambda d: manifest(d, widths=[10**9, 1]),
    "a width of 2**62": lambda d: manifest(d, widths=[2**62, 2**62]),
    "a width below 0": lambda d: manifest(d, widths=[-4, 1]),
    "a dimension of 10**9": lambda d: manifest(d, dim=10**9, config=reshaped(d, dim=10**9)),
    "heads that do not divide": lambda d: manifest(d, config=reshaped(d, heads=3)),
    "no files": lambda d: manifest(d, files={}),
}


@pytest.mark.fault(
    "A bundle with a malformed file, wrong shapes, NaN, an absurd width or a path as its generation", "It is refused with one sentence"
)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_malformed_bundle_is_refused_in_a_sentence(directory, wrong):
    WRONG[wrong](directory)
    with pytest.raises(BundleError, match=r"the bundle's .* expected"):
        load(directory)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([*FILES, MANIFEST]), st.data())
def test_whatever_bytes_change_a_bundle_loads_or_is_refused(good, tmp_path, name, data):
    directory = tmp_path / "bundle"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(good, directory)
    content = bytearray((directory / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, min(len(content) - 1, 400)))  # where the structure is
        if data.draw(st.booleans()):
            content[at] = data.draw(st.integers(0, 255))
        else:
            del content[at : at + data.draw(st.sampled_from([1, 7, len(content)]))]
            content = content or bytearray(b"{")
    put(directory, name, bytes(content))
    with suppress(BundleError):
        load(directory)


@pytest.mark.fault("A generation name that contains a path", "No snapshot is written or read outside its directory")
def test_a_snapshot_is_never_written_outside_its_folder(tmp_path, caplog):
    folder = tmp_path / "data" / "deep"
    snapshots = Snapshots(folder, "item-codes", 0, 60.0)
    index = quickly_trained(1).index()
    for name in ("x/../../../pwned", "../pwned", "/tmp/pwned", "", "a" * 13):
        assert not snapshots.save(name, Saved(index, {0: 0}, index.held))
        assert snapshots.load(name, None, "item-codes") is None
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} <= {"data", "data/deep"}

"""An index on disk: arrays as safetensors, names as bytes, and a manifest with checksums. Loading compares and refuses."""

import os
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from models.codes.codebook import Codebook
from models.directories import replaced
from models.errors import SnapshotError
from models.index.block import Block
from models.index.cells import Cells
from models.index.rows import Ids, Numbers, Rows
from models.index.scan import Effort, Efforts, Levels, Scan

FORMAT = 1
MANIFEST, VECTORS, ARRAYS, NAMES, EXTRA = "manifest.json", "vectors.safetensors", "arrays.safetensors", "names.safetensors", "extra.bin"
_PIECE = 1 << 22  # bytes written and summed at once
_NAMES = 16_384  # names brought into bytes at once: other threads may run between
_TYPES = {"float64": "F64", "float32": "F32", "int32": "I32", "int64": "I64", "uint8": "U8", "bool": "BOOL"}


class SnapshotManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is saved. `files` holds the checksum of each file, `held` the generations of codes, `generation` the one that serves."""

    format: int = FORMAT
    items: int
    dim: int
    generation: str
    held: list[str]
    files: dict[str, str]


class SavedBase(NamedTuple):
    """A base with its codebooks by generation, the generation that serves, and what the caller keeps beside it."""

    base: Block
    codebooks: Mapping[str, Codebook]
    generation: str
    extra: bytes


def save(stored: SavedBase, directory: Path, items: Ids, categories: Ids) -> None:
    """Write into a new directory beside `directory` and rename it there; one that stood there is replaced."""
    with replaced(directory) as staging:
        rows = stored.base.rows
        files = {
            VECTORS: _write(staging / VECTORS, {"vectors": rows.vectors}),
            ARRAYS: _write(staging / ARRAYS, _arrays(stored)),
            NAMES: _write(staging / NAMES, _names(items, categories, rows.numbers)),
            EXTRA: _write(staging / EXTRA, stored.extra),
        }
        manifest = SnapshotManifest(
            items=rows.n, dim=rows.vectors.shape[1], generation=stored.generation, held=list(stored.codebooks), files=files
        )
        _write(staging / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2))


def load(directory: Path) -> tuple[SavedBase, Ids, Ids]:
    """What was saved, with the names of items (those of row i have the number i) and of categories.

    Raises:
        SnapshotError: a file is missing, changed or of another format, or the parts do not belong together.
    """
    directory = Path(directory)
    manifest = _manifest(directory)
    arrays: dict[str, NDArray[Any]] = {}
    for name in (VECTORS, ARRAYS, NAMES):
        _check(directory / name, manifest.files.get(name, ""))
        try:
            with safe_open(directory / name, "np") as file:
                arrays.update({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118, it is no mapping
        except SafetensorError as error:
            raise SnapshotError(f"file {name}", str(error), "arrays") from error
    _check(directory / EXTRA, manifest.files.get(EXTRA, ""))
    try:
        codebooks = {name: Codebook.from_centroids(arrays[f"codebook:{name}"]) for name in manifest.held}
        base = _base(arrays, manifest)
        items, categories = (Ids(list(_unpacked(arrays, what))) for what in ("items", "categories"))
    except KeyError as error:
        raise SnapshotError("array", "missing", error.args[0]) from error
    for what, found, expected in (
        ("generations", [codebook.generation for codebook in codebooks.values()], manifest.held),
        ("serving generation", manifest.generation in codebooks, True),
        ("items", (len(items), *base.rows.vectors.shape), (manifest.items, manifest.items, manifest.dim)),
    ):
        if found != expected:
            raise SnapshotError(what, found, expected)
    return SavedBase(base, codebooks, manifest.generation, (directory / EXTRA).read_bytes()), items, categories


def _arrays(stored: SavedBase) -> dict[str, NDArray[Any]]:
    base, rows = stored.base, stored.base.rows
    arrays = {"categories": rows.categories, "prices": rows.prices, "available": rows.available, "first_rows": base.starts}
    arrays.update({f"codes:{name}": codes for name, codes in rows.codes.items()})
    arrays.update({f"codebook:{name}": codebook.centroids for name, codebook in stored.codebooks.items()})
    if rows.parts is not None:
        arrays["parts"] = rows.parts
    if base.scan is not None:
        arrays.update({f"cells.{name}": array for name, array in base.scan.cells._asdict().items()})
        arrays.update({"scan.levels": base.scan.levels.values, "scan.codes": base.scan.codes})
        arrays.update({"scan.efforts": np.array(base.scan.efforts), "scan.age": np.array([base.scan.age])})
    return arrays


def _base(arrays: Mapping[str, NDArray[Any]], manifest: SnapshotManifest) -> Block:
    rows = Rows(
        np.arange(manifest.items, dtype=np.int32),
        arrays["categories"],
        arrays["vectors"],
        arrays["prices"],
        arrays["available"],
        {name: arrays[f"codes:{name}"] for name in manifest.held},
        arrays.get("parts"),
    )
    scan = None
    if "scan.codes" in arrays:
        cells = Cells(*(arrays[f"cells.{name}"] for name in Cells._fields))
        scan = Scan(cells, Levels(arrays["scan.levels"]), arrays["scan.codes"], int(arrays["scan.age"][0]))
        scan.efforts = Efforts(*(Effort(int(count), compared) for count, compared in arrays["scan.efforts"].tolist()))
    return Block(rows, arrays["first_rows"], scan)


def _names(items: Ids, categories: Ids, numbers: Numbers) -> dict[str, NDArray[Any]]:
    arrays = {}
    for what, ids, chosen in (("items", items, numbers), ("categories", categories, np.arange(len(categories)))):
        texts, lengths = [], []
        for start in range(0, len(chosen), _NAMES):
            encoded = [name.encode(errors="surrogatepass") for name in ids.names(chosen[start : start + _NAMES])]
            lengths.append(np.fromiter(map(len, encoded), np.int32, len(encoded)))
            texts.append(b"".join(encoded))
        arrays[f"{what}.text"] = np.frombuffer(b"".join(texts), dtype=np.uint8)
        arrays[f"{what}.lengths"] = np.concatenate([np.empty(0, dtype=np.int32), *lengths])
    return arrays


def _unpacked(arrays: Mapping[str, NDArray[Any]], what: str) -> Iterator[str]:
    text = arrays[f"{what}.text"].tobytes()
    ends = np.cumsum(arrays[f"{what}.lengths"], dtype=np.int64).tolist()
    return (text[first:last].decode(errors="surrogatepass") for first, last in pairwise([0, *ends]))


def _manifest(directory: Path) -> SnapshotManifest:
    try:
        told = msgspec.json.decode((directory / MANIFEST).read_bytes(), type=dict)
        if told.get("format") != FORMAT:
            raise SnapshotError("format", told.get("format"), FORMAT)
        return msgspec.convert(told, SnapshotManifest)
    except OSError as error:
        raise SnapshotError(f"file {MANIFEST}", f"missing from {directory} ({error.strerror})", "a readable file") from error
    except msgspec.MsgspecError as error:
        raise SnapshotError("manifest", f"unreadable ({error})", f"JSON of format {FORMAT}") from error


def _check(path: Path, checksum: str) -> None:
    digest = blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError as error:
        raise SnapshotError(f"file {path.name}", f"missing from {path.parent} ({error.strerror})", "a readable file") from error
    if digest.hexdigest() != checksum:
        raise SnapshotError(f"checksum of {path.name}", digest.hexdigest(), checksum)


def _write(path: Path, content: bytes | Mapping[str, NDArray[Any]]) -> str:
    """Write bytes, or arrays as safetensors without a copy of them; the checksum of what was written."""
    digest = blake2b(digest_size=16)
    pieces: list[bytes | memoryview] = [content] if isinstance(content, bytes) else [_header(content), *map(_buffer, content.values())]
    with path.open("wb") as file:
        for piece in pieces:
            for start in range(0, len(piece), _PIECE):
                part = memoryview(piece)[start : start + _PIECE]
                digest.update(part)
                file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _buffer(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _header(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    told, end = {}, 0
    for name, array in arrays.items():
        told[name] = {"dtype": _TYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = msgspec.json.encode(told)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text

"""A bundle: all that serving needs of one training, as a directory of plain data and a manifest. Loading compares and refuses."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
import safetensors.numpy
import torch

from features.table import schema_hash
from models.bundle.popular import Popular
from models.codes.codebook import Codebook
from models.codes.modalities import only_fused
from models.config import Config
from models.directories import replaced
from models.encoding.contents import Widths
from models.encoding.vocabulary import Vocabulary
from models.errors import BundleError
from models.index import ItemIndex
from models.network.ulim import Network

FORMAT = 6  # what a file holds, and how texts become ids (features.text, models.encoding.contents)
MANIFEST = "manifest.json"
WEIGHTS, ITEM_VECTORS, CODEBOOK = "weights.safetensors", "items.safetensors", "codebook.safetensors"
NAMES, POPULAR = "names.msgpack", "popular.msgpack"
FILES = (WEIGHTS, ITEM_VECTORS, CODEBOOK, NAMES, POPULAR)


COPY_OR_TRAIN = "copy the whole directory again, or train a bundle with this version (everlong train)"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a bundle. `files` has the checksum of each file; `metrics` are those of the held-out events.

    It was trained on the events of `data` before `cut_ms` (None: unknown). A bundle that continues another one names that generation
    as `parent`, and in `earlier` the data of its predecessors. `steps` counts all training steps of the towers. `chosen`: the shares
    in `config` were chosen on some of the held-out users (models.evaluation.share_selection.chooses, with `seed`). `notes` say which
    data was ignored.
    """

    format: int = FORMAT
    schema: str
    generation: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{12}$")]
    codebook: str
    dim: int
    subspaces: int
    categories: int
    items: int
    widths: Widths
    config: Config
    data: str
    seed: int
    created: str
    cut_ms: int | None = None
    parent: str | None = None
    earlier: tuple[str, ...] = ()
    steps: int = 0
    chosen: bool = False
    notes: tuple[str, ...] = ()
    metrics: dict[str, dict[str, float]] = {}
    files: dict[str, str] = {}


@dataclass(frozen=True)
class ItemTable:
    """The catalogue at training time. `vectors` (V, d) float32 of unit length, `codes` (V, P) uint8.

    `parts` (V, D) float32 is what the codes stand for (models.codes.modalities); None: the vectors.
    """

    ids: Sequence[str]
    categories: Sequence[str]
    titles: Sequence[str]
    vectors: np.ndarray
    codes: np.ndarray
    parts: np.ndarray | None = None


@dataclass(frozen=True)
class Bundle:
    """All that serving needs: manifest, network, vocabulary, catalogue, codebook, and what is popular without a model."""

    manifest: Manifest
    network: Network
    vocabulary: Vocabulary
    items: ItemTable
    codebook: Codebook
    popular: Popular

    @property
    def generation(self) -> str:
        """The name of this training's vectors: those of two generations are never mixed."""
        return self.manifest.generation

    def index(self) -> ItemIndex:
        """A new index of the catalogue at training time; items that came later are applied to it."""
        table = self.items
        return ItemIndex(self.codebook, table.vectors, table.ids, table.categories, codes=table.codes, parts=table.parts)


def save(bundle: Bundle, directory: Path) -> Path:
    """Write the bundle into a new directory beside `directory` and rename it there; one that stood there is replaced."""
    with replaced(directory) as staging:
        contents = _contents(bundle)
        checksums = {name: _checksum(content) for name, content in contents.items()}
        manifest = msgspec.structs.replace(bundle.manifest, files=checksums)
        contents[MANIFEST] = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
        for name, content in contents.items():
            _write(staging / name, content)
    return Path(directory).absolute()


def load(directory: Path, device: str = "cpu") -> Bundle:
    """The bundle of a directory, its network on `device`.

    Raises:
        BundleError: a file is missing, changed or malformed, parts do not belong together, or format, schema or dimensions are not
            those of this program.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    contents = {name: _read(directory, name, manifest.files.get(name, "")) for name in FILES}
    names = _part(NAMES, lambda: msgspec.msgpack.decode(contents[NAMES], type=_Names))
    arrays = _arrays(ITEM_VECTORS, contents, "vectors", "codes")
    weights = _arrays(WEIGHTS, contents)
    codebook = _part(CODEBOOK, lambda: Codebook.from_centroids(_arrays(CODEBOOK, contents, "centroids")["centroids"]))
    popular = _part(POPULAR, lambda: msgspec.msgpack.decode(contents[POPULAR], type=Popular))
    vocabulary = Vocabulary(names.categories, names.vocabulary_items)
    items = ItemTable(names.items, names.item_categories, names.titles, arrays["vectors"], arrays["codes"], arrays.get("parts"))
    _agree(manifest, vocabulary, items, codebook)
    network = _network(manifest, vocabulary, weights)
    return Bundle(manifest, network.to(device).eval(), vocabulary, items, codebook, popular)


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a bundle, compared with this program's format and schema.

    Raises:
        BundleError: there is none, it is malformed, or it is of another format or schema.
    """
    remedy = "train a bundle with this version (everlong train), or run the version that trained it"
    content = _read(Path(directory), MANIFEST, None)
    try:
        told: dict[str, Any] = msgspec.json.decode(content, type=dict[str, Any])
    except Exception as error:  # not JSON, not UTF-8, too deep
        raise BundleError("manifest", f"unreadable ({error})", "JSON", "fetch the bundle again") from error
    for what, expected in (("format", FORMAT), ("schema", schema_hash())):
        if told.get(what) != expected:
            raise BundleError(what, told.get(what), expected, remedy)
    try:
        return msgspec.convert(told, Manifest)
    except Exception as error:
        raise BundleError("manifest", str(error), f"fields of format {FORMAT}", remedy) from error


class _Names(msgspec.Struct):
    """The file of names: the vocabulary, and ids, categories and titles of the items."""

    categories: list[str]
    vocabulary_items: list[str]
    items: list[str]
    item_categories: list[str]
    titles: list[str]


Part = TypeVar("Part")


def _part(name: str, read: Callable[[], Part]) -> Part:
    """What a file holds."""
    try:
        return read()
    except BundleError:
        raise
    except Exception as error:  # of a malformed file anything may come
        found = f"unreadable ({type(error).__name__}: {str(error)[:200]})"
        raise BundleError(f"file {name}", found, f"what format {FORMAT} keeps there", COPY_OR_TRAIN) from error


def _arrays(name: str, contents: Mapping[str, bytes], *needed: str) -> dict[str, np.ndarray]:
    """The arrays of a file, all of them finite."""
    arrays = _part(name, lambda: safetensors.numpy.load(contents[name]))
    if missing := set(needed) - set(arrays):
        raise BundleError(f"file {name}", f"without {', '.join(sorted(missing))}", f"with {', '.join(needed)}", COPY_OR_TRAIN)
    for part, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise BundleError(f"file {name}", f"not finite in {part}", "finite numbers", COPY_OR_TRAIN)
    return arrays


def _network(manifest: Manifest, vocabulary: Vocabulary, weights: Mapping[str, np.ndarray]) -> Network:
    """The network with its weights. Their shapes are compared before anything of the manifest's sizes is made."""
    sizes = manifest.config.network, vocabulary.category_rows, vocabulary.item_rows, manifest.widths

    def expected() -> dict[str, tuple[int, ...]]:
        with torch.device("meta"):
            return {name: tuple(tensor.shape) for name, tensor in Network(*sizes).state_dict().items()}

    shapes = _part(MANIFEST, expected)
    found = {name: array.shape for name, array in weights.items()}
    differing = sorted(name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name))
    if differing:
        name = differing[0]
        was, wanted = (f"{name} of shape {there.get(name)}" for there in (found, shapes))
        raise BundleError("weights", was, wanted, "train a bundle with this version")

    def filled() -> Network:
        network = Network(*sizes)
        network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        return network

    network = _part(WEIGHTS, filled)
    if (made := fingerprint(network)) != manifest.generation:
        raise BundleError("generation", manifest.generation, f"{made}, which its weights are named by", COPY_OR_TRAIN)
    return network


def fingerprint(network: Network) -> str:
    """12 hex digits that name these weights: equal weights, equal name."""
    digest = blake2b(digest_size=6)
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _contents(bundle: Bundle) -> dict[str, bytes]:
    names = {
        "categories": bundle.vocabulary.categories,
        "vocabulary_items": bundle.vocabulary.items,
        "items": list(bundle.items.ids),
        "item_categories": list(bundle.items.categories),
        "titles": list(bundle.items.titles),
    }
    arrays = {"vectors": bundle.items.vectors, "codes": bundle.items.codes}
    if bundle.items.parts is not None:
        arrays["parts"] = bundle.items.parts
    weights = {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in bundle.network.state_dict().items()}
    return {
        WEIGHTS: safetensors.numpy.save(weights),
        ITEM_VECTORS: safetensors.numpy.save(arrays),
        CODEBOOK: safetensors.numpy.save({"centroids": np.ascontiguousarray(bundle.codebook.centroids)}),
        NAMES: msgspec.msgpack.encode(names),
        POPULAR: msgspec.msgpack.encode(bundle.popular),
    }


def _agree(manifest: Manifest, vocabulary: Vocabulary, items: ItemTable, codebook: Codebook) -> None:
    remedy = "the parts are of two trainings: copy the whole directory again or train again"
    wide = manifest.dim * len(manifest.config.network.coded)
    parts = None if only_fused(manifest.config.network.coded) else (manifest.items, wide)
    for what, found, expected in (
        ("dimension of item vectors", items.vectors.shape, (manifest.items, manifest.dim)),
        ("shape of codes", items.codes.shape, (manifest.items, manifest.subspaces)),
        ("shape of the vectors that are coded", None if items.parts is None else items.parts.shape, parts),
        ("dimension of the codebook", codebook.dim, wide),
        ("codebook", codebook.generation, manifest.codebook),
        ("dimension of the network", manifest.config.network.dim, manifest.dim),
        ("remainder of that dimension by its heads", manifest.dim % max(manifest.config.network.heads, 1), 0),
        ("number of categories", len(vocabulary.categories), manifest.categories),
        ("number of items", len(items.ids), manifest.items),
        ("number of different items", len(set(items.ids)), manifest.items),
        ("number of items' categories", len(items.categories), manifest.items),
        ("number of titles", len(items.titles), manifest.items),
        ("type of item vectors", str(items.vectors.dtype), "float32"),
        ("type of codes", str(items.codes.dtype), "uint8"),
        ("type of the vectors that are coded", "float32" if items.parts is None else str(items.parts.dtype), "float32"),
    ):
        if found != expected:
            raise BundleError(what, found, expected, remedy)
    if items.codes.size and int(items.codes.max()) >= codebook.size:
        raise BundleError("greatest code", int(items.codes.max()), f"below {codebook.size}", remedy)


def _read(directory: Path, name: str, checksum: str | None) -> bytes:
    try:
        content = (directory / name).read_bytes()
    except OSError as error:
        reason = f"missing from {directory} ({error.strerror})"
        raise BundleError(f"file {name}", reason, "a readable file", "train a bundle (everlong train) or copy it whole") from error
    if checksum is not None and _checksum(content) != checksum:
        raise BundleError(f"checksum of {name}", _checksum(content), checksum, "the file was changed or cut: copy the bundle again")
    return content


def _checksum(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

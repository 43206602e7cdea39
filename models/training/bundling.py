"""From a trained network to a bundle: vectors of the catalogue, their codebook and codes, the manifest."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import msgspec
import numpy as np
import torch
from torch import Tensor

from features.embeddings import embedding_widths, ignored_embeddings
from features.events import Item
from features.table import schema_hash
from models.bundle import Bundle, ItemTable, Manifest, fingerprint
from models.codes.codebook import Codebook, Floats
from models.codes.modalities import only_fused
from models.config import Config, NetworkConfig
from models.encoding.contents import Contents, contents
from models.evaluation.baselines import popularity
from models.network.ulim import Network
from models.serving.recommender import CHUNK
from models.training.dataset import Prepared


@torch.no_grad()
def item_vectors(network: Network, items: Contents) -> Tensor:
    """The vectors (n, d) of items, as bundles hold them."""
    return torch.cat([network.items(chunk) for chunk in _chunks(items)])


def _chunks(items: Contents) -> Iterator[Contents]:
    count = len(items.item)
    return (items.take(np.arange(start, min(start + CHUNK, count))) for start in range(0, count, CHUNK))


@torch.inference_mode()
def bundle_of(network: Network, prepared: Prepared, config: Config, seed: int, data: str, created: str, steps: int) -> Bundle:
    """The bundle of a network that was trained for `steps` steps, without metrics."""
    parent, catalogue = prepared.parent, prepared.catalogue
    vectors, parts = _encoded(network, prepared.contents, config.network)  # (V, d), (V, D)
    start = parent.codebook if parent else None
    codebook = Codebook.train(vectors if parts is None else parts, config.network.subspaces * len(config.network.coded), seed, start=start)
    manifest = Manifest(
        schema=schema_hash(),
        generation=fingerprint(network),
        codebook=codebook.generation,
        dim=config.network.dim,
        subspaces=codebook.subspaces,
        categories=len(prepared.vocabulary.categories),
        items=len(catalogue),
        widths=prepared.widths,
        config=config,
        data=data,
        seed=seed,
        created=created,
        cut_ms=prepared.cut_ms,
        parent=parent.generation if parent else None,
        earlier=tuple(sorted({*parent.manifest.earlier, parent.manifest.data})) if parent else (),
        steps=steps + (parent.manifest.steps if parent else 0),
        notes=tuple(ignored_embeddings(embedding_widths(catalogue), prepared.widths._asdict())),
    )
    popular = popularity(prepared.done, prepared.cut_ms, config.retrieval.popular, config.retrieval.popular_days)
    return Bundle(manifest, network, prepared.vocabulary, _table(catalogue, vectors, parts, codebook), codebook, popular)


@torch.inference_mode()
def with_items(bundle: Bundle, catalogue: Sequence[Item]) -> Bundle:
    """The bundle over another catalogue: items get the vectors and codes that serving gives them, without training."""
    manifest = bundle.manifest
    told = contents(catalogue, bundle.vocabulary, manifest.config.network, manifest.widths)
    items = _table(catalogue, *_encoded(bundle.network, told, manifest.config.network), bundle.codebook)
    return replace(bundle, manifest=msgspec.structs.replace(manifest, items=len(catalogue)), items=items)


def _encoded(network: Network, items: Contents, config: NetworkConfig) -> tuple[Floats, Floats | None]:
    """The vectors (V, d) of items, and what codes stand for (V, D) where that is something else."""
    vectors = item_vectors(network, items).cpu().numpy()  # (V, d)
    if only_fused(config.coded):
        return vectors, None
    return vectors, np.concatenate([network.coded(chunk, config.coded) for chunk in _chunks(items)])  # (V, D)


def _table(catalogue: Sequence[Item], vectors: Floats, parts: Floats | None, codebook: Codebook) -> ItemTable:
    ids, categories = [item.item_id for item in catalogue], [item.category_id for item in catalogue]
    codes = codebook.encode(vectors if parts is None else parts)  # (V, P)
    return ItemTable(ids, categories, [item.title for item in catalogue], vectors, codes, parts)

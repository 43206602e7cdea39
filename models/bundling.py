"""From what was learnt to a bundle: vectors of the catalogue, their codebook and codes, the manifest."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from features.table import schema_hash
from models.bundle import Bundle, ItemTable, Manifest, fingerprint
from models.codes.codebook import Codebook
from models.codes.modalities import only_fused
from models.config import Config
from models.evaluation.contenders import popularity
from models.prepared import Prepared
from models.recommender import CHUNK
from models.seminar.contents import Contents
from models.ulim.network import Network


@torch.no_grad()
def item_vectors(network: Network, items: Contents) -> Tensor:
    """The vectors (n, d) of items, as bundles hold them."""
    return torch.cat([network.items(chunk) for chunk in _chunks(items)])


def _chunks(items: Contents) -> Iterator[Contents]:
    count = len(items.item)
    return (items.take(np.arange(start, min(start + CHUNK, count))) for start in range(0, count, CHUNK))


@torch.inference_mode()
def bundle_of(network: Network, prepared: Prepared, config: Config, seed: int, data: str, created: str, steps: int) -> Bundle:
    """The bundle of a network that learnt `steps` steps; without metrics."""
    parent, catalogue = prepared.parent, prepared.catalogue
    vectors = item_vectors(network, prepared.contents).cpu().numpy()  # (V, d)
    wide = () if only_fused(config.coded) else [network.coded(chunk, config.coded) for chunk in _chunks(prepared.contents)]
    parts = np.concatenate(wide) if wide else None  # (V, D)
    coded = vectors if parts is None else parts
    codebook = Codebook.train(coded, config.subspaces * len(config.coded), seed, start=parent.codebook if parent else None)
    manifest = Manifest(
        schema=schema_hash(),
        generation=fingerprint(network),
        codebook=codebook.generation,
        dim=config.dim,
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
    )
    ids, categories = [item.item_id for item in catalogue], [item.category_id for item in catalogue]
    items = ItemTable(ids, categories, [item.title for item in catalogue], vectors, codebook.encode(coded), parts)
    popular = popularity(prepared.done, prepared.cut_ms, config.popular, config.popular_days)
    return Bundle(manifest, network, prepared.vocabulary, items, codebook, popular)

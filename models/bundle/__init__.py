"""A trained model as files: weights, vocabulary, codebook, item table, popular items, and the manifest that names them."""

from models.bundle.bundle import (
    CODEBOOK,
    FILES,
    ITEM_VECTORS,
    MANIFEST,
    NAMES,
    POPULAR,
    WEIGHTS,
    Bundle,
    ItemTable,
    Manifest,
    fingerprint,
    load,
    read_manifest,
    save,
)

__all__ = [
    "CODEBOOK",
    "FILES",
    "ITEM_VECTORS",
    "MANIFEST",
    "NAMES",
    "POPULAR",
    "WEIGHTS",
    "Bundle",
    "ItemTable",
    "Manifest",
    "fingerprint",
    "load",
    "read_manifest",
    "save",
]

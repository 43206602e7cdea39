"""What all inputs of models share: time gaps in buckets, and arrays on a device."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

GAP_ROWS = 32


def gaps(milliseconds: Sequence[int] | np.ndarray) -> np.ndarray:
    """Buckets (n,) of time gaps, one for each doubling of seconds: 1 below a second, 2 below 3 seconds, 13 about an hour."""
    seconds = np.maximum(np.asarray(milliseconds, np.float64), 0) / 1000
    return np.minimum(1 + np.log2(1 + seconds).astype(np.int64), GAP_ROWS - 1)


def tensors(arrays: Sequence[np.ndarray], device: str | torch.device) -> list[Tensor]:
    """The arrays of a named tuple on a device, in its order."""
    return [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays]

"""Tensors that follow from a seed."""

import torch


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def masks(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.6

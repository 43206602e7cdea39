"""Mechanisms of other papers, and inputs left out, each plugged into ULIM's network by a builder (docs/ablations.md has their effects).

A builder has the signature of `Network`. It replaces modules of the network that it returns, or returns a subclass.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from models.config import NetworkConfig
from models.encoding.contents import Widths
from models.network.ulim import Builder, Network
from research.mechanisms.attention_table import DecoupledNetwork
from research.mechanisms.memory import MemoryPooling
from research.mechanisms.packing import PackedAttention
from research.mechanisms.recurrent import Recurrent
from research.mechanisms.self_pooling import SelfPooling
from research.mechanisms.target_free import TargetFreePooling


def pooling(make: Callable[[NetworkConfig], nn.Module], base: Builder = Network) -> Builder:
    """`base` with a long tower that pools by another module, with the interface of `TargetPooling`."""

    def build(config: NetworkConfig, category_rows: int, item_rows: int, widths: Widths) -> Network:
        network = base(config, category_rows, item_rows, widths)
        network.towers.long.pool = make(config)
        return network

    return build


def encoding(make: Callable[[NetworkConfig], nn.Module], base: Builder = Network) -> Builder:
    """`base` with a short tower that encodes by another module, with the interface of `SelfAttention`."""

    def build(config: NetworkConfig, category_rows: int, item_rows: int, widths: Widths) -> Network:
        network = base(config, category_rows, item_rows, widths)
        network.towers.short.block = make(config)
        return network

    return build


def attention_table(width: int) -> Builder:
    """DARE: attention of the long tower by a table of this width."""
    return partial(DecoupledNetwork, width=width)


def memory(slots: int) -> Builder:
    """DMAN: the long tower also reads a memory of this many slots."""
    return pooling(lambda config: MemoryPooling(config.dim, slots))


TARGET_FREE = pooling(lambda config: TargetFreePooling(config.dim))  # MIRRN
SELF_ATTENTION = pooling(lambda config: SelfPooling(config.dim, config.heads))
RECURRENT = encoding(lambda config: Recurrent(config.dim))  # SIGMA, STAR-Rec
PACKED = encoding(lambda config: PackedAttention(config.dim, config.heads))  # JD

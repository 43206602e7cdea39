"""What reads the short history: self-attention, the same with short users packed into rows, a recurrence; one core."""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench import parts, table
from bench.index import one_core, tell
from models.config import NetworkConfig
from models.network.layers import SelfAttention
from research.mechanisms.packing import pack, packed
from research.mechanisms.recurrent import Recurrent

SERVED, LEARNT, ROUNDS = 64, 256, 9  # users refreshed at once; examples of a batch
WAYS = ("attention", "packed", "recurrent")
HEADS = ("lengths", "users", "filled", "rows", *WAYS, *(f"{way}, training" for way in WAYS))


def measure(options: argparse.Namespace, _: Path) -> str:
    """The section of the page."""
    loads = [table.load()]
    config = NetworkConfig()
    data = parts.load_data(options.data, options.events)
    with one_core():
        rows = [row(name, lengths, config) for users in (SERVED, LEARNT) for name, lengths in cases(users, config.short, data)]
    loads.append(table.load())
    return "\n".join(
        [
            f"## Short encoder: {config.short} newest events, d {config.dim}",
            "",
            f"Milliseconds of CPU of one block over a batch of users, one core, the median of {ROUNDS} rounds in turn: forward as in",
            "serving, and forward with backward (`training`). `filled` is the share of places where there is an event, `rows` how many",
            "rows the users are packed into. A batch that is nearly full is not packed, so `packed` is `attention` there.",
            "",
            *table.markdown(HEADS, rows),
            "",
            table.stamp(loads),
        ]
    )


def cases(users: int, cap: int, data: parts.Data) -> list[tuple[str, np.ndarray]]:
    """Names and lengths (users,) of histories."""
    rng = np.random.default_rng(0)
    short = np.minimum(cap, rng.geometric(1 / 4, users))
    seen: Counter[str] = Counter()
    before = []
    for event in data.events:
        before.append(min(cap, max(1, seen[event.user_id])))
        seen[event.user_id] += 1
    return [
        (f"at moments of {data.name}", rng.choice(before, users)),
        ("all full", np.full(users, cap)),
        ("even from 1 to the cap", rng.integers(1, cap + 1, users)),
        ("4 on average, one full", np.append(short[1:], cap)),
    ]


def row(name: str, lengths: np.ndarray, config: NetworkConfig) -> tuple[str, ...]:
    """The cells of one case."""
    torch.manual_seed(0)
    attention, recurrent = SelfAttention(config.dim, config.heads), Recurrent(config.dim)
    mask = torch.arange(int(lengths.max())) < torch.from_numpy(lengths)[:, None]  # (B, T)
    tokens = torch.randn(*mask.shape, config.dim)  # (B, T, d)
    blocks: list[tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]] = [
        (attention, attention),
        (attention, partial(packed, attention)),
        (recurrent, recurrent),
    ]
    ways: list[Callable[[], object]] = [partial(serve, read, tokens, mask) for _, read in blocks]
    ways += [partial(learn, block, read, tokens, mask) for block, read in blocks]
    taken = [f"{ms:.2f}" for ms in times(ways)]
    cells = (name, str(len(lengths)), f"{float(mask.float().mean()):.2f}", str(pack(mask).rows), *taken)
    tell(" | ".join(cells))
    return cells


@torch.inference_mode()
def serve(read: Callable[[Tensor, Tensor], Tensor], tokens: Tensor, mask: Tensor) -> None:
    """Forward alone."""
    read(tokens, mask)


def learn(block: nn.Module, read: Callable[[Tensor, Tensor], Tensor], tokens: Tensor, mask: Tensor) -> None:
    """Forward and backward."""
    block.zero_grad()
    (read(tokens, mask) * mask.unsqueeze(-1)).sum().backward()


def times(ways: list[Callable[[], object]]) -> list[float]:
    """Median milliseconds of CPU of each way, all ways in turn in each round."""
    taken: list[list[float]] = [[] for _ in ways]
    for round_ in range(ROUNDS + 1):
        for of, run in zip(taken, ways, strict=True):
            began = time.process_time()
            run()
            if round_:
                of.append(1e3 * (time.process_time() - began))
    return [float(np.median(of)) for of in taken]

"""Continuing the training of a bundle on newer events, instead of training from scratch.

Events that the bundle was trained on are history: rows contain them, but none is an example again. Known items and
categories keep their rows of the tables. The id embedding of a new item starts as its content vector, so that at first it changes
nothing; other new rows start at the mean of the known ones. The codebook starts from the bundle's.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from features.history import Deeds
from models.bundle import Bundle
from models.config import Config
from models.encoding.contents import Contents
from models.encoding.vocabulary import UNKNOWN
from models.errors import WarmStartError
from models.network.psu import Psu
from models.serving.recommender import CHUNK

NOISE = 0.1  # of the spread of a table: how far a new row starts from the mean, so that two new ones differ


def config_for(parent: Bundle, requested: Mapping[str, object]) -> Config:
    """The bundle's configuration with the requested fields replaced; the cut is not carried over.

    Raises:
        WarmStartError: a field of the network is requested to differ, which needs other weights.
    """
    old = parent.manifest.config
    new = old.replace(**({"cut_ms": None} | dict(requested)))
    if new.network != old.network:
        before, after = (msgspec.structs.asdict(config.network) for config in (old, new))
        differing = ", ".join(f"{name} {before[name]}, not {after[name]}" for name in before if before[name] != after[name])
        raise WarmStartError(
            f"the bundle {parent.generation} was trained with {differing}", "leave out that option, or train without --from"
        )
    return new


def new_since(parent: Bundle, done: Mapping[str, Deeds]) -> int:
    """The time (ms) until which events were trained on by the bundle; events from then on are new to it.

    Raises:
        WarmStartError: all events are older, or the bundle does not say.
    """
    since = parent.manifest.cut_ms
    if since is None:
        raise WarmStartError(f"the bundle {parent.generation} does not say until when it was trained", "train it again, without --from")
    newest = max((deeds.events[-1].ts for deeds in done.values() if deeds.events), default=0)
    if newest < since:
        ends, trained = (datetime.fromtimestamp(ts / 1000, UTC).isoformat(timespec="seconds") for ts in (newest, since))
        raise WarmStartError(
            f"nothing is new: the bundle {parent.generation} was trained on events before {trained}, and the newest event to train on is "
            f"of {ends}: give data with newer events, or a later --cut"
        )
    return since


@torch.no_grad()
def take_over(network: nn.Module, parent: nn.Module) -> None:
    """Copy the parent's weights into a network of the same shapes, except tables with more rows. Advances torch's random generator.

    Raises:
        WarmStartError: the shapes differ in another way.
    """
    old = parent.state_dict()
    for name, now in [*network.named_parameters(), *network.named_buffers()]:
        if name not in old or old[name].shape[1:] != now.shape[1:] or len(now.reshape(-1)) < len(old[name].reshape(-1)):
            raise WarmStartError(f"the bundle's weights {name} are not those of this version", "train again, without --from")
        rows = old[name].cpu()
        more = len(now) - len(rows) if now.ndim else 0
        if more:
            rows = torch.cat([rows, _new(rows, more)])
        now.copy_(rows)


@torch.no_grad()
def begin_new(psu: Psu, contents: Contents, first: int) -> None:
    """Let the ids of items from row `first` on begin as what their content says, as long as those of known items are.

    The unit is left in evaluation mode: while it trains, words are hidden.
    """
    psu.eval()
    for at in np.array_split(np.flatnonzero(contents.item >= first), max(1, len(contents.item) // CHUNK)):
        new = contents.take(at)
        said = F.normalize(psu.items(new._replace(item=np.full(len(at), UNKNOWN))).item, dim=-1)  # (n, d)
        psu.id.weight[torch.from_numpy(new.item)] = said * psu.id.weight[UNKNOWN:first].norm(dim=1).mean()


def _new(rows: Tensor, more: int) -> Tensor:
    """New rows (more, ...): about the mean of the known ones; of single numbers the unknown's."""
    if rows.ndim == 1:
        return rows[UNKNOWN].expand(more)
    known = rows[UNKNOWN:]
    return known.mean(0) + torch.randn(more, *rows.shape[1:]) * known.std() * NOISE

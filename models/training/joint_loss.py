"""The joint loss of a batch: both towers in the category, the short one and live queries in the pool, the next category (ULIM)."""

import numpy as np
import torch
from torch import Tensor

from models.config import Config
from models.encoding.contents import Contents, trim
from models.encoding.inputs import QUERY, Tokens, ends_with
from models.network.ulim import Network
from models.training.examples import Examples
from models.training.loss import Drawn, allow, sampled_softmax
from models.training.pretrain import hide


def joint_loss(
    network: Network,
    examples: Examples,
    batch: np.ndarray,
    drawn: Drawn,
    table: Contents,
    config: Config,
    rng: np.random.Generator,
) -> Tensor:
    """The joint loss of a batch of examples, a scalar. `table` holds the contents of all V + N positions."""
    short, long = examples.short.take(batch), examples.long.take(batch)
    used, places = np.unique(np.concatenate([short.item.ravel(), long.item.ravel(), drawn.position]), return_inverse=True)
    shown = hide(table.take(used), config.network.item_dropout, rng)
    vectors = network.items(shown)  # (U, d)
    read = network.table(vectors, shown.item)
    at_short, at_long, at_drawn = np.split(places, np.cumsum([short.item.size, long.item.size]))
    told = np.concatenate([[0], short.text.ravel(), long.text.ravel()])  # 0, no text, is 0 among those of the batch too
    texts, inverse = np.unique(told, return_inverse=True)
    numbers = inverse[1:]
    said = network.texts(trim(examples.words[texts]))  # (texts, d)
    short = _local(short, at_short, numbers[: short.text.size])
    long = _local(long, at_long, numbers[short.text.size :])
    weights, temperature = config.training, config.network.temperature
    state = network.users(read, short, examples.touched.take(batch), said)
    category = torch.from_numpy(examples.category[batch]).to(network.device)  # (B,)
    interest = network.long(read, long, said, state.pooled, state.profile, category)  # (B, d)
    chance = network.next_category(state).mixed.gather(1, category[:, None])  # (B, 1)
    to = network.device
    candidates = vectors[torch.from_numpy(at_drawn).to(to)]  # (C, d)
    position, own = (torch.from_numpy(array).to(to) for array in (drawn.position, drawn.category))  # (C,), (C,)
    q_category, q_pool = (torch.from_numpy(q).float().to(to) for q in (drawn.log_q_category, drawn.log_q_pool))
    target = position[: len(batch)]  # (B,)
    same = allow(target, position, own[: len(batch), None] == own[None, :])  # (B, C)
    pool = allow(target, position, torch.from_numpy(drawn.pooled).to(to))  # (B, C)
    live = torch.from_numpy(ends_with(QUERY, short)).to(to)  # (B,): the text of the query that the target may follow, or 0
    live_query, is_live = said[live], (live > 0).float()  # (B, d), (B,)
    asked = (same, q_category) if weights.long_negatives == "category" else (pool, q_pool)
    return (
        weights.alpha * sampled_softmax(interest, candidates, *asked, temperature, weights.log_q)
        + weights.beta * sampled_softmax(state.vectors, candidates, same, q_category, temperature, weights.log_q)
        + weights.pool_weight * sampled_softmax(state.vectors, candidates, pool, q_pool, temperature, weights.log_q)
        + weights.query_weight * sampled_softmax(live_query, candidates, pool, q_pool, temperature, weights.log_q, is_live)
        - weights.gamma * chance.clamp(min=1e-9).log().mean()
    )


def _local(tokens: Tokens, item: np.ndarray, text: np.ndarray) -> Tokens:
    return tokens._replace(item=item.reshape(tokens.item.shape), text=text.reshape(tokens.text.shape))

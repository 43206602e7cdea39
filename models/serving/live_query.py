"""A list for a live search: what is near the words that the user searched for and has not clicked after (path `query`).

The vector of the words is SEMINAR's query side in the space of the items (models.network.towers). A search is live while it is the
newest thing of the row `user`: an event after it ends it, whether it followed from it or not.
"""

from collections.abc import Callable, Collection, Sequence

import numpy as np

from features.rows import UserRow
from models.codes.codebook import Floats
from models.config.retrieval import USUAL
from models.encoding.inputs import live_query
from models.index import Found, View, Where
from models.serving.quotas import Extra

PATH = "query"


def searched_for(
    view: View,
    users: Sequence[UserRow],
    queries: Callable[[Sequence[str]], Floats],
    excludes: Sequence[Collection[str]],
    limit: int,
    where: Where | None = None,
    share: float = USUAL.query,
) -> Extra:
    """The nearest items of the whole pool for each of B users with a live search, none for the others.

    `queries` gives unit vectors (n, d) of n texts, zeros for one that says nothing; such a search finds nothing. Left out are
    items that are excluded (a collection of ids for each user) or held back by `where`.
    """
    texts = [live_query(row) for row in users]
    live = [n for n, text in enumerate(texts) if text]
    found = Found.nothing(len(users), max(limit, 0))
    if live and limit > 0:
        vectors = queries([texts[n] for n in live])  # (n, d)
        said = np.flatnonzero(vectors.any(1))
        mine = [live[n] for n in said.tolist()]
        hits = view.search_pool(vectors[said], limit, [excludes[n] for n in mine], where)
        found.numbers[mine], found.scores[mine] = hits.numbers, hits.scores
    return Extra(PATH, found, share)

"""All contenders that need no training, fitted on a split's known history."""

from collections.abc import Callable, Sequence

from models.config import RetrievalConfig
from models.evaluation.baselines import POPULAR_DEPTH, SIMPLE, Contender, MostPopular, PopularInCategories, SeenBefore, popularity
from models.evaluation.item_knn import ItemNeighbours
from models.evaluation.score import Entry
from models.evaluation.split import Split

LATELY_DAYS = RetrievalConfig().popular_days  # half-life of an event


def simple(split: Split, names: Sequence[str] = SIMPLE, seed: int = 0) -> list[Entry]:
    """The named ones of SIMPLE, in its order."""
    popular = popularity(split.known, split.cut_ms, POPULAR_DEPTH)
    makers: dict[str, Callable[[], Contender]] = {
        "most popular": lambda: MostPopular(popular),
        "popular lately": lambda: MostPopular(popularity(split.known, split.cut_ms, POPULAR_DEPTH, LATELY_DAYS)),
        "popular in categories": lambda: PopularInCategories(popular),
        "seen before": lambda: SeenBefore(popular, often=False),
        "seen often": lambda: SeenBefore(popular, often=True),
        "item-kNN": lambda: ItemNeighbours(split.known, popular),
    }
    return [Entry(name, seed, makers[name]()) for name in SIMPLE if name in names]

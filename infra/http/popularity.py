"""What a user without a candidate set gets, from the API and from `everlong candidates` alike."""

import logging
from pathlib import Path

import msgspec

from features.outcomes import Candidate
from models.bundle import POPULAR, read_manifest
from models.errors import BundleError
from models.serving.popular import Popular

log = logging.getLogger(__name__)


class Popularity:
    """What a user without a candidate set gets: the popular items of the bundle as it is now; nothing while there is none."""

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle
        self._generation = ""
        self._items: list[Candidate] = []

    def best(self, k: int) -> list[Candidate]:
        """The k most popular items, best first."""
        try:
            generation = read_manifest(self._bundle).generation
            if generation != self._generation:
                popular = msgspec.msgpack.decode((self._bundle / POPULAR).read_bytes(), type=Popular)
                self._items = [Candidate(item, score, category, "popular") for item, score, category in popular.overall]
                self._generation = generation
        except (BundleError, OSError, msgspec.MsgspecError) as error:
            log.warning("users without a candidate set get the earlier popular items: %s", error)
        return self._items[:k]

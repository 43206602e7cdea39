"""The fallback for users without a candidate set, in the API and in `everlong candidates`."""

import logging
from pathlib import Path

import msgspec

from features.outcomes import Candidate
from models.bundle import POPULAR, read_manifest
from models.bundle.popular import Popular
from models.errors import BundleError

log = logging.getLogger(__name__)


class Popularity:
    """Popular items of the current bundle, for users without a candidate set; empty without a bundle."""

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

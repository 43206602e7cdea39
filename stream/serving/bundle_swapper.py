"""The swap of a bundle: load and prepare the new one, then replace one reference. The old one serves until then."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from models.bundle import MANIFEST, read_manifest
from models.errors import BundleError

log = logging.getLogger(__name__)

T = TypeVar("T")


class BundleSwapper(Generic[T]):
    """Holds what is served, and replaces it when the bundle's directory holds another generation.

    `make(directory)` returns what is to be served, ready; `retire(old)` ends what was replaced. Nothing is loaded before `open`.
    """

    def __init__(self, directory: Path, make: Callable[[Path], T], retire: Callable[[T], None] = lambda old: None) -> None:
        self._directory, self._make, self._retire = directory, make, retire
        self._current: T | None = None
        self.generation = ""
        self.problem: str | None = None  # why the bundle in the directory is not used
        self._logged: str | None = None

    @property
    def current(self) -> T:
        """What is served. Before `open` there is nothing."""
        assert self._current is not None
        return self._current

    def open(self) -> bool:
        """Load the bundle in the directory. False where there is none yet, or none that this program can use: see `problem`."""
        if not (self._directory / MANIFEST).exists():
            remedy = f"make one with `everlong train --out {self._directory}`"
            return self._refuse(f"there is no bundle at {self._directory}: {remedy}", logging.WARNING)
        try:
            generation = read_manifest(self._directory).generation
            self._current = self._make(self._directory)
        except BundleError as error:
            return self._refuse(str(error))
        self.generation, self.problem = generation, None
        return True

    def look(self) -> bool:
        """True where a new generation was found, loaded and swapped in. One that does not load is logged, and the old one stays."""
        try:
            found = read_manifest(self._directory).generation
            if found == self.generation:
                self.problem = None
                return False
            new = self._make(self._directory)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the new one is no reason to lose the old one
            return self._refuse(f"the new bundle is not used, {self.generation} is still served: {error}")
        self.problem = None
        old, self._current, self.generation = self.current, new, found
        self._retire(old)
        log.info("bundle %s is in use", found)
        return True

    def _refuse(self, problem: str, level: int = logging.ERROR) -> bool:
        self.problem = problem
        if problem != self._logged:
            self._logged = problem
            log.log(level, "%s", problem)
        return False

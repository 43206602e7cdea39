"""The swap of a bundle: load, fill, warm up, then replace one reference; the old one goes on until then."""

import logging
from collections.abc import Callable
from pathlib import Path

from models.bundle import read_manifest

log = logging.getLogger(__name__)


class Swapper:
    """Holds what is served now, and replaces it when the bundle's directory holds another generation.

    `make(directory)` gives what is to be served, ready; `retire(old)` ends what was replaced.
    """

    def __init__(self, directory: Path, make: Callable[[Path], object], retire: Callable[[object], None] = lambda old: None) -> None:
        self._directory, self._make, self._retire = directory, make, retire
        self.generation = read_manifest(directory).generation
        self.current = make(directory)
        self.problem: str | None = None  # why the bundle in the directory is not used
        self._logged: str | None = None

    def look(self) -> bool:
        """True where a new generation was found, loaded and swapped in. One that does not load is logged, the old one stays."""
        try:
            found = read_manifest(self._directory).generation
            if found == self.generation:
                self.problem = None
                return False
            new = self._make(self._directory)
        except Exception as error:  # whatever is wrong with the new one is no reason to lose the old one
            self.problem = f"the new bundle is not used, {self.generation} is still served: {error}"
            if self.problem != self._logged:
                self._logged = self.problem
                log.error("%s", self.problem)
            return False
        self.problem = None
        old, self.current, self.generation = self.current, new, found
        self._retire(old)
        log.info("bundle %s is in use", found)
        return True

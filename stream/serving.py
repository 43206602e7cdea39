"""What a worker serves with, and its swap: load, fill, warm up, then replace one reference; the old one goes on until then.

A new bundle is noticed by the generation in its manifest. Codes and vectors of two generations are never mixed: a code of
another generation is counted and left out, and the generation that replaces it reads the whole topic anew.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Lock
from time import monotonic

import numpy as np

from models.bundle import load, read_manifest
from models.recommender import Recommender
from models.snapshots import Change, Delete, Upsert
from stream.code_tail import Codes, CodeTail
from stream.connection import Connection
from stream.messages import ItemCode
from stream.refresh import Serving

log = logging.getLogger(__name__)

CATCH_UP_S = 120.0
OnItems = Callable[[int, int, Sequence[int]], None]


class LiveServing:
    """A recommender and an index that follows the topic `item-codes`. `lock` is held by whoever reads or changes the recommender.

    `on_items` is told of each batch of codes that took its place: items in the index, time (ms) of the newest, and when each
    that came since the start was sent (wall clock, ms), where it says so.
    """

    def __init__(self, directory: Path, device: str, connection: Connection, topic: str, on_items: OnItems) -> None:
        bundle = load(directory, device)
        recommender = Recommender(bundle, device)
        recommender.warm_up()
        self.lock = Lock()
        self.serving = Serving(recommender, bundle.index(), bundle.popular)
        self._on_items = on_items
        self.other_generation = 0
        self.tail = CodeTail(connection, topic, self.apply)

    def start(self, stopping: Event) -> None:
        """Read the topic to what is its end now; the tail ends where that takes too long, or it fails.

        Raises:
            TimeoutError: the topic was not read in time.
        """
        self.tail.start()
        end = monotonic() + CATCH_UP_S
        try:
            while not self.tail.caught_up and not stopping.wait(0.05):
                if self.tail.failure is not None:
                    raise self.tail.failure
                if monotonic() > end:
                    raise TimeoutError(f"the item codes were not read within {CATCH_UP_S:.0f} s: is the broker up?")
        except BaseException:
            self.tail.stop()
            raise

    def apply(self, codes: Codes) -> None:
        """Bring codes of this generation into the index, and take out what is gone."""
        recommender, index = self.serving.recommender, self.serving.index
        changes: list[Change] = []
        mine: list[ItemCode] = []
        for item, code in codes:
            if code is None:
                changes.append(Delete(item))
            elif code.generation == recommender.generation:
                mine.append(code)
                vector, quantised = np.frombuffer(code.vector, "<f4"), np.frombuffer(code.code, np.uint8)
                changes.append(Upsert(item, code.category_id, vector, quantised, index.generation))
            else:
                self.other_generation += 1
        index.apply(changes)
        if mine:
            with self.lock:
                recommender.remember([code.item_id for code in mine], np.stack([np.frombuffer(code.vector, "<f4") for code in mine]))
        if index.compaction_due:
            index.compact()
        sent = [code.sent_ms for code in mine if code.sent_ms] if self.tail.caught_up else []
        self._on_items(len(index), max((code.ts for code in mine), default=0), sent)


class Swapper:
    """Holds what is served now, and replaces it when the bundle's directory holds another generation.

    `make(directory)` gives what is to be served, ready; `retire(old)` ends what was replaced.
    """

    def __init__(self, directory: Path, make: Callable[[Path], object], retire: Callable[[object], None] = lambda old: None) -> None:
        self._directory, self._make, self._retire = directory, make, retire
        self.generation = read_manifest(directory).generation
        self.current = make(directory)

    def look(self) -> bool:
        """True where a new generation was found, loaded and swapped in. One that does not load is logged, the old one stays."""
        try:
            found = read_manifest(self._directory).generation
            if found == self.generation:
                return False
            new = self._make(self._directory)
        except Exception as error:  # whatever is wrong with the new one is no reason to lose the old one
            log.error("the new bundle is not taken, the old one serves on: %r", error)
            return False
        old, self.current, self.generation = self.current, new, found
        self._retire(old)
        log.info("bundle %s is in use", found)
        return True


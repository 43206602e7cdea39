"""Snapshots of an index on disk, each with the offsets of its reader: a start from one reads only the records after them."""

import logging
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from models.index import ItemIndex
from stream.kafka.connection import Connection
from stream.kafka.topic_reader import Offsets, ranges

log = logging.getLogger(__name__)

GENERATION = re.compile("[0-9a-f]{12}")


class Saved(NamedTuple):
    """An index, the offsets up to which it holds the records of the topic, and the codebooks of which it holds codes."""

    items: ItemIndex
    offsets: Offsets
    held: Sequence[str]


class _Mark(msgspec.Struct, frozen=True):
    """Stored with the index: its bundle, topic and epoch, and the offsets."""

    bundle: str
    topic: str
    epoch: int
    offsets: dict[int, int]


class Snapshots:
    """Snapshots in `folder`, one per bundle, saved every `every_s` seconds. `topic` and `epoch` identify the topic."""

    def __init__(self, folder: Path, topic: str, epoch: int, every_s: float) -> None:
        self._folder, self._topic, self._epoch = folder, topic, epoch
        self.every_s = every_s

    def load(self, bundle: str, connection: Connection, topic: str) -> Saved | None:
        """The snapshot of a bundle; None if there is none, or none that can be used, which is logged.

        Its offsets must be of the topic's partitions, each between the first offset and the end.
        """
        try:
            place = self._place(bundle)
            if not place.exists():
                return None
            index, extra = ItemIndex.load(place)
            mark = msgspec.json.decode(extra, type=_Mark)
        except Exception as error:  # noqa: BLE001 - a damaged file may raise anything; the topic has all of it
            log.warning("the snapshot of the index in %s is not used, the topic is read from its start: %s", self._folder, error)
            return None
        found = ranges(connection, topic)
        fits = mark.offsets.keys() == found.keys() and all(found[at][0] <= offset <= found[at][1] for at, offset in mark.offsets.items())
        if (mark.bundle, mark.topic, mark.epoch) != (bundle, self._topic, self._epoch) or not fits:
            log.warning("the snapshot of the index in %s is of another topic, epoch or bundle and is not used", place)
            return None
        log.info("the index starts from its snapshot in %s, with %d items", place, len(index))
        return Saved(index, mark.offsets, index.held)

    def save(self, bundle: str, now: Saved) -> bool:
        """Write a snapshot over the previous one, and remove those of other bundles. False on a failure, which is logged."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            mark = _Mark(bundle, self._topic, self._epoch, now.offsets)
            now.items.save(self._place(bundle), msgspec.json.encode(mark))
        except (OSError, ValueError) as error:
            log.error("the snapshot of the index was not written: %r", error)
            return False
        for other in self._folder.glob("index-*"):
            if other != self._place(bundle):
                with suppress(OSError):
                    shutil.rmtree(other)
        return True

    def _place(self, bundle: str) -> Path:
        """The folder of a bundle's snapshot.

        Raises:
            ValueError: the name is not the generation of a bundle, and might lead elsewhere.
        """
        if not GENERATION.fullmatch(bundle):
            raise ValueError(f"{bundle!r} is not the generation of a bundle")
        return self._folder / f"index-{bundle}"

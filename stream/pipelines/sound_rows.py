"""Rows of a batch of the refresh pipeline, with the unreadable ones as empty rows."""

from collections import Counter
from collections.abc import Callable

from features.codec import Row, unpack
from features.errors import UnreadableRowError
from features.quarantine import Quarantined
from features.store import Key, OnlineStore, Stored
from features.table import USER_INTERESTS


class SoundRows:
    """Unpacks rows. Unreadable rows of ingest are left for ingest to rebuild; those of interests, computed again, are quarantined.

    `unreadable` counts the unreadable rows by view.
    """

    def __init__(self, store: OnlineStore, clock_ms: Callable[[], int]) -> None:
        self._store, self._clock_ms = store, clock_ms
        self.unreadable: Counter[str] = Counter()

    def row(self, kind: type[Row], key: Key, stored: Stored | None) -> tuple[Row, bool]:
        """The row, or the empty one and True where it cannot be read.

        Raises:
            StoreUnavailableError: it could not be quarantined.
            features.codec.OtherLayoutError: another version of Everlong wrote it.
        """
        try:
            return unpack(kind, stored and stored.packed), False
        except UnreadableRowError as error:
            self.unreadable[key.view] += 1
            if stored is not None and key.view == USER_INTERESTS.name:
                position, at_ms = (*stored.log_position,), self._clock_ms()
                kept = Quarantined(key.view, key.entities, str(error), at_ms, "complete", position, stored.ts_ms, stored.packed)
                self._store.quarantine([kept])
            return kind(), True

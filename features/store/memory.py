"""The online store in memory: for tests and a single process. Its contents are lost when the process ends."""

from collections.abc import Collection, Sequence
from threading import Lock

from features.quarantine import MOST_ROWS, Quarantined, decode_all, encode
from features.store import Key, Stored
from features.store.layout import entity_key, position_text


class MemoryStore:
    """A dictionary that implements `features.store.OnlineStore`."""

    def __init__(self) -> None:
        self._rows: dict[Key, Stored] = {}
        self._apart: dict[str, bytes] = {}
        self._lock = Lock()

    def read(self, keys: Sequence[Key]) -> list[Stored | None]:
        """See `OnlineStore.read`."""
        with self._lock:
            return [self._rows.get(key) for key in keys]

    def write(self, rows: Sequence[tuple[Key, Stored]]) -> list[bool]:
        """See `OnlineStore.write`."""
        for key, row in rows:
            entity_key(key.view, key.entities)
            position_text(row.log_position)
        written = []
        with self._lock:
            for key, row in rows:
                old = self._rows.get(key)
                written.append(old is None or not row.log_position.older_than(old.log_position))
                if written[-1]:
                    self._rows[key] = row
        return written

    def quarantine(self, rows: Sequence[Quarantined]) -> None:
        """See `OnlineStore.quarantine`."""
        with self._lock:
            for row in rows[: MOST_ROWS - len(self._apart)]:
                self._apart[row.id] = encode(row)

    def quarantined(self) -> list[Quarantined]:
        """See `OnlineStore.quarantined`."""
        with self._lock:
            return decode_all(self._apart.values())

    def release(self, ids: Collection[str]) -> None:
        """See `OnlineStore.release`."""
        with self._lock:
            for id_ in ids:
                self._apart.pop(id_, None)

    def close(self) -> None:
        """Nothing to close; the rows stay."""

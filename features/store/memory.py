"""The online store in memory: for tests and a single process. It forgets everything when the process ends."""

from collections.abc import Sequence
from threading import Lock

from features.store import Key, Stored
from features.store.layout import entity_key, version_text


class MemoryStore:
    """A dictionary that keeps the promises of `features.store.OnlineStore`."""

    def __init__(self) -> None:
        self._rows: dict[Key, Stored] = {}
        self._lock = Lock()

    def read(self, keys: Sequence[Key]) -> list[Stored | None]:
        """See `OnlineStore.read`."""
        with self._lock:
            return [self._rows.get(key) for key in keys]

    def write(self, rows: Sequence[tuple[Key, Stored]]) -> list[bool]:
        """See `OnlineStore.write`."""
        for key, row in rows:
            entity_key(key.view, key.entities)
            version_text(row.version)
        written = []
        with self._lock:
            for key, row in rows:
                old = self._rows.get(key)
                written.append(old is None or not row.version.older_than(old.version))
                if written[-1]:
                    self._rows[key] = row
        return written

    def close(self) -> None:
        """Nothing to give back; the rows stay."""

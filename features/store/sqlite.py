"""The online store in one SQLite file, in the layout of Feast's `type: sqlite`. For one machine; several processes may share it.

Feast stores event times in whole seconds; an additional column, `event_ts_ms`, stores milliseconds.
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from features.errors import StoreUnavailableError
from features.quarantine import MOST_ROWS, Quarantined, decode_all, encode
from features.retries import RetryPolicy
from features.store import Key, LogPosition, Stored
from features.store.layout import (
    bytes_value,
    entity_key,
    position_of,
    position_text,
    stored_name,
    stored_of,
    string_value,
)
from features.table import APPLIED, PACKED, VIEWS

QUESTION_KEYS = 500  # per SELECT; SQLite allows at least 999 variables
SWITCH_AGAIN_S = 0.01  # between attempts to enable the write-ahead log of a file that another process writes

_TABLE = """CREATE TABLE IF NOT EXISTS {table} (
    entity_key BLOB, feature_name TEXT, value BLOB, value_text TEXT, vector_value BLOB, event_ts timestamp,
    created_ts timestamp, event_ts_ms INTEGER, PRIMARY KEY(entity_key, feature_name))"""
_UPSERT = """INSERT INTO {table} (entity_key, feature_name, value, value_text, event_ts, event_ts_ms) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT(entity_key, feature_name) DO UPDATE SET value = excluded.value, value_text = excluded.value_text,
    event_ts = excluded.event_ts, event_ts_ms = excluded.event_ts_ms"""
_SELECT = """SELECT entity_key, feature_name, CAST(value AS BLOB), CAST(coalesce(event_ts_ms, event_ts * 1000) AS INTEGER) FROM {table}
    WHERE entity_key IN ({keys}) AND feature_name IN ({names})"""


class SqliteStore:
    """Rows in a SQLite file. Thread-safe, and safe between processes.

    A write is one transaction, on disk before `write` returns: an offset committed afterwards is safe against a power failure.

    Args:
        path: the file; it and its folder are created if missing, accessible to this user only.
        project: Feast project.
        busy_timeout_s: how long a write, and opening, waits for another process that writes.

    Raises:
        StoreUnavailableError: the file cannot be opened or is not a database.
    """

    def __init__(self, path: Path | str, project: str = "everlong", busy_timeout_s: float = 5.0) -> None:
        self._path = Path(path)
        self._tables = {view.name: _quote(f"{project}_{view.name}") for view in VIEWS}
        self._apart = _quote(f"{project}_quarantine")
        self._lock = Lock()
        with self._translated():
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.touch(0o600)  # SQLite gives its log and shared memory the file's mode
            self._connection = sqlite3.connect(self._path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
            self._write_ahead(busy_timeout_s)
            self._prepare()

    def __repr__(self) -> str:
        return f"SqliteStore({str(self._path)!r})"

    def read(self, keys: Sequence[Key]) -> list[Stored | None]:
        """See `OnlineStore.read`."""
        places = [(key.view, entity_key(key.view, key.entities)) for key in keys]
        with self._lock, self._translated():
            values = self._values(places, (APPLIED, PACKED))
        return [stored_of(values.get((*place, APPLIED), (None, 0))[0], *values.get((*place, PACKED), (None, 0))) for place in places]

    def write(self, rows: Sequence[tuple[Key, Stored]]) -> list[bool]:
        """See `OnlineStore.write`."""
        places = [(key.view, entity_key(key.view, key.entities)) for key, _ in rows]
        texts = [position_text(row.log_position) for _, row in rows]
        if not rows:
            return []
        with self._lock, self._translated(), self._transaction():
            stored = self._positions(places)
            written = []
            for place, text, (_, row) in zip(places, texts, rows, strict=True):
                written.append(place not in stored or not row.log_position.older_than(stored[place]))
                if written[-1]:
                    stored[place] = row.log_position
                    self._upsert(place, text, row)
        return written

    def quarantine(self, rows: Sequence[Quarantined]) -> None:
        """See `OnlineStore.quarantine`. They are rows of one table, PROJECT_quarantine."""
        with self._lock, self._translated(), self._transaction():
            [(kept,)] = self._connection.execute(f"SELECT COUNT(*) FROM {self._apart}")
            records = [(row.id, encode(row)) for row in rows[: max(0, MOST_ROWS - kept)]]
            self._connection.executemany(f"INSERT OR REPLACE INTO {self._apart} VALUES (?, ?)", records)

    def quarantined(self) -> list[Quarantined]:
        """See `OnlineStore.quarantined`."""
        with self._lock, self._translated():
            return decode_all(record for (record,) in self._connection.execute(f"SELECT CAST(record AS BLOB) FROM {self._apart}"))

    def release(self, ids: Collection[str]) -> None:
        """See `OnlineStore.release`."""
        with self._lock, self._translated(), self._transaction():
            self._connection.executemany(f"DELETE FROM {self._apart} WHERE id = ?", [(id_,) for id_ in ids])

    def close(self) -> None:
        """See `OnlineStore.close`."""
        with self._lock:
            self._connection.close()

    def _write_ahead(self, busy_timeout_s: float) -> None:
        """Enable the write-ahead log. SQLite's timeout does not apply while a new file is switched to it, so this waits."""
        policy = RetryPolicy(SWITCH_AGAIN_S, SWITCH_AGAIN_S, busy_timeout_s)
        policy.retrying(_busy)(self._connection.execute, "PRAGMA journal_mode=WAL")

    def _prepare(self) -> None:
        """Create the tables as Feast does, and add the column of milliseconds to tables that Feast created."""
        self._connection.execute("PRAGMA synchronous=FULL")
        with self._transaction():
            self._connection.execute(f"CREATE TABLE IF NOT EXISTS {self._apart} (id TEXT PRIMARY KEY, record BLOB)")
            for table in self._tables.values():
                self._connection.execute(_TABLE.format(table=table))
                columns = {column for _, column, *_ in self._connection.execute(f"PRAGMA table_info({table})")}
                if "event_ts_ms" not in columns:
                    self._connection.execute(f"ALTER TABLE {table} ADD COLUMN event_ts_ms INTEGER")

    def _values(self, places: Sequence[tuple[str, bytes]], parts: Sequence[str]) -> dict[tuple[str, bytes, str], tuple[bytes, int]]:
        """(value, time in ms) of the parts of the rows, by (view, entity key, part); a part is PACKED or APPLIED."""
        found: dict[tuple[str, bytes, str], tuple[bytes, int]] = {}
        for view, table in self._tables.items():
            wanted = [key for name, key in places if name == view]
            names = {stored_name(view, part): part for part in parts}
            for start in range(0, len(wanted), QUESTION_KEYS):
                chunk = wanted[start : start + QUESTION_KEYS]
                question = _SELECT.format(table=table, keys=_marks(chunk), names=_marks(names))
                for key, name, value, ts_ms in self._connection.execute(question, (*chunk, *names)):
                    found[view, key, names[name]] = value, ts_ms
        return found

    def _positions(self, places: Sequence[tuple[str, bytes]]) -> dict[tuple[str, bytes], LogPosition]:
        values = self._values(places, (APPLIED,))
        return {(view, key): position_of(value) for (view, key, _), (value, _) in values.items()}

    def _upsert(self, place: tuple[str, bytes], text: str, row: Stored) -> None:
        view, key = place
        times = row.ts_ms // 1000, row.ts_ms
        self._connection.executemany(
            _UPSERT.format(table=self._tables[view]),
            (
                (key, stored_name(view, APPLIED), string_value(text), text, *times),
                (key, stored_name(view, PACKED), bytes_value(row.packed), None, *times),
            ),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The one place where errors of SQLite are translated."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailableError(f"SQLite file {self._path}: {error}") from error


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _marks(values: Collection[object]) -> str:
    return ",".join("?" * len(values))


def _busy(error: BaseException) -> bool:
    """Whether another process holds the lock."""
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY

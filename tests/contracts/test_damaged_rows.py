"""Rows that something else damaged in the store: read as damaged, overwritten, and kept apart, one by one, in every adapter."""

import json
import sqlite3

import pytest
from typer.testing import CliRunner

from features.codec import pack, unpack
from features.errors import LayoutError
from features.quarantine import Quarantined
from features.rows import UserRow
from features.store import MOST_EPOCH, Key, LogPosition, OnlineStore, Stored
from features.store.layout import HASH_FIELDS, bytes_value, entity_key, stored_name, string_value
from features.store.redis import RedisStore
from features.store.sqlite import SqliteStore
from infra.cli import make_app

KEY, SOUND = Key("user", ("u",)), Key("user", ("sound",))
ROW = Stored(pack(UserRow()), LogPosition(0, 5, 0, 0), 1000)
VERSION = string_value("v:0:5:0:0")
DAMAGED = {
    "not Feast's": (VERSION, b"\xff" * 200),
    "not Feast's, but a row": (VERSION, ROW.packed),
    "cut": (VERSION, bytes_value(ROW.packed)[:-3]),
    "random": (VERSION, bytes_value(b"\x93\xff\xc1" * 30)),
    "empty": (VERSION, b""),
    "gone": (VERSION, None),
    "version is not text": (b"\xff\x00v", bytes_value(b"?")),
    "version too large": (string_value("v:9223372036854775808:1:1:1"), bytes_value(b"?")),
    "version of an epoch that no worker has": (string_value(f"v:{MOST_EPOCH + 1}:1:1:1"), bytes_value(b"?")),
    "version of a thousand digits": (string_value(f"v:0:{'9' * 1000}:0:0"), bytes_value(b"?")),
    "all": (b"\0\xff", b"\0\xff"),
}


def damage(store: OnlineStore, applied: bytes | None, packed: bytes | None) -> None:
    """What another program may do to a row."""
    if isinstance(store, RedisStore):
        names, at = HASH_FIELDS["user"], store._hash(KEY)
        for name, value in ((names.applied, applied), (names.packed, packed), (names.ts, b"\xff" * 50)):
            store._client.hdel(at, name) if value is None else store._client.hset(at, name, value)
        return
    assert isinstance(store, SqliteStore)
    with sqlite3.connect(store._path) as connection:
        for part, value in (("applied", applied), ("row", packed)):
            text = value if value is None or part == "applied" else value.decode("latin-1")
            place = entity_key("user", ("u",)), stored_name("user", part)
            connection.execute(
                f"UPDATE {store._tables['user']} SET value = ?, event_ts_ms = 'x' WHERE entity_key = ? AND feature_name = ?", (text, *place)
            )
    connection.close()


@pytest.mark.parametrize("store", ["sqlite", "redis", "cluster"], indirect=True)
@pytest.mark.parametrize("found", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_row_is_read_as_one_and_gives_way_and_the_others_are_not_touched(store: OnlineStore, found: tuple[bytes, bytes]) -> None:
    assert store.write([(KEY, ROW), (SOUND, ROW)]) == [True, True]
    damage(store, *found)
    stored, sound = store.read([KEY, SOUND])
    assert sound == ROW
    assert stored is not None
    assert stored.log_position in (ROW.log_position, LogPosition())
    assert 0 <= stored.ts_ms <= 2**52
    with pytest.raises(LayoutError):
        unpack(UserRow, stored.packed)
    assert store.write([(KEY, ROW), (SOUND, ROW)]) == [True, True]
    assert store.read([KEY, SOUND]) == [ROW, ROW]


@pytest.mark.parametrize("store", ["redis", "cluster"], indirect=True)
def test_a_key_of_another_type_is_a_damaged_row(store: RedisStore) -> None:
    store.write([(SOUND, ROW)])
    store._client.set(store._hash(KEY), b"something else")
    stored, sound = store.read([KEY, SOUND])
    assert sound == ROW
    assert stored is not None
    assert b"something else" in stored.packed
    assert store.write([(KEY, ROW), (SOUND, ROW)]) == [True, True]
    assert store.read([KEY]) == [ROW]


def test_rows_are_kept_apart_once_and_released(store: OnlineStore) -> None:
    def apart(user: str, at_ms: int, packed: bytes = b"\xff") -> Quarantined:
        return Quarantined("user", (user,), "it was damaged", at_ms, "none", (0, 1, 2, 3), 5, packed)

    store.quarantine([])
    assert store.quarantined() == []
    store.quarantine([apart("u", 2), apart("v", 1)])
    store.quarantine([apart("u", 2), apart("u", 3, b"\xfe")])
    rows = store.quarantined()
    assert [(row.entities, row.at_ms, row.packed) for row in rows] == [(("v",), 1, b"\xff"), (("u",), 2, b"\xff"), (("u",), 3, b"\xfe")]
    store.release([rows[1].id, "unknown"])
    assert store.quarantined() == [rows[0], rows[2]]


def test_the_command_lists_shows_and_clears(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/rows.db"
    monkeypatch.setenv("EVERLONG_STORE_URL", url)
    monkeypatch.setenv("EVERLONG_DATA_DIR", str(tmp_path))
    row = Quarantined("user_category", ("u", "c"), "it was damaged", 7, "partial", (0, 1, 2, 3), 5, b"\xff\x00")
    store = SqliteStore(tmp_path / "rows.db")
    store.quarantine([row])
    store.close()

    def run(*arguments: str) -> dict:
        done = CliRunner().invoke(make_app(), ["quarantine", *arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    [listed] = run("list")["rows"]
    assert (listed["id"], listed["entities"], listed["rebuilt"], listed["bytes"]) == (row.id, ["u", "c"], "partial", 2)
    assert run("show", row.id) == listed | {"packed": "/wA="}
    for command in (["list"], ["show", row.id]):
        shown = CliRunner().invoke(make_app(), ["quarantine", *command], catch_exceptions=False)
        assert row.id in shown.stdout
    assert run("clear") == {"cleared": 1}
    assert run("list") == {"total": 0, "rows": []}
    with pytest.raises(LookupError, match="quarantine list"):
        CliRunner().invoke(make_app(), ["quarantine", "show", row.id], catch_exceptions=False)

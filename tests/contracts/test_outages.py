"""What the Redis and SQLite adapters do when their store is away, full, read-only or not what it seems."""

import asyncio
import shutil
import sqlite3
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import sleep

import pytest
import redis

from features.codec import unpack
from features.errors import StoreUnavailableError, UnreadableRowError
from features.quarantine import Quarantined
from features.rows import UserRow
from features.store import Key, LogPosition, Stored
from features.store.layout import HASH_FIELDS, entity_key
from features.store.memory import MemoryStore
from features.store.opening import open_store
from features.store.redis import COMMANDS, RedisStore
from features.store.sqlite import SqliteStore
from tests.contracts.conftest import Valkey, running_valkey

KEY = Key("user", ("u",))
ROW = Stored(b"row", LogPosition(0, 1, 2, 3), 4)


@pytest.fixture
def server(tmp_path: Path):
    with running_valkey(tmp_path / "valkey") as started:
        yield started


def test_unavailable_while_killed_and_back_afterwards(server: Valkey) -> None:
    port = server.port
    store = RedisStore(f"redis://127.0.0.1:{port}")
    assert store.write([(KEY, ROW)]) == [True]
    server.kill()
    for call in (lambda: store.write([(KEY, ROW)]), lambda: store.read([KEY])):
        with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{port}") as caught:
            call()
        assert caught.value.retry_after_s > 0
        assert isinstance(caught.value.__cause__, redis.exceptions.RedisError)
    server.start()
    assert store.write([(KEY, ROW)]) == [True]
    assert store.read([KEY]) == [ROW]
    store.close()


def test_a_silent_server_is_given_up_in_bounded_time(server: Valkey) -> None:
    store = RedisStore(server.url, timeout_s=0.2, retries=1)
    store.write([(KEY, ROW)])
    with server.admin() as client:
        client.execute_command("CLIENT", "PAUSE", 600_000, "ALL")
    with pytest.raises(StoreUnavailableError, match=r"nothing within 0.2 s"):
        store.write([(KEY, ROW)])


def test_a_forgotten_script_is_loaded_again(server: Valkey) -> None:
    store = RedisStore(server.url)
    rows = [(Key("user", (str(n),)), ROW) for n in range(250)]
    for _ in range(2):
        assert all(store.write(rows))
        with server.admin() as client:
            client.script_flush()
    assert store.read([rows[-1][0]]) == [ROW]


def test_a_replica_is_named_as_the_reason(server: Valkey) -> None:
    store = RedisStore(server.url)
    store.write([(KEY, ROW)])
    with server.admin() as client:
        client.replicaof("127.0.0.1", 1)
        with pytest.raises(StoreUnavailableError, match="read-only replica"):
            store.write([(KEY, ROW)])
        client.replicaof("NO", "ONE")
    assert store.write([(KEY, ROW)]) == [True]


def test_lack_of_memory_is_named_as_the_reason(server: Valkey) -> None:
    store = RedisStore(server.url)
    with server.admin() as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailableError, match="maxmemory"):
            store.write([(KEY, ROW)])
        client.config_set("maxmemory", 0)
    assert store.write([(KEY, ROW)]) == [True]


def test_a_password_is_used_and_never_shown(server: Valkey) -> None:
    with server.admin() as client:
        client.config_set("requirepass", "geheim")
    right = RedisStore(f"redis://:geheim@127.0.0.1:{server.port}/1")
    assert right.write([(KEY, ROW)]) == [True]
    wrong = RedisStore(f"redis://:hunter2@127.0.0.1:{server.port}")
    with pytest.raises(StoreUnavailableError, match="refused the user name or password") as caught:
        wrong.write([(KEY, ROW)])
    shown = f"{right!r} {wrong!r} {caught.value} {caught.value.__cause__!r}"
    assert "geheim" not in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    "url",
    [
        None, "", "redis", "redis://", "redis://:hun/ter2@host", "redis://:hunter2@host:port", "mysql://:hunter2@host/x",
        "sqlite://", "sqlite:///", "memory://hunter2",
    ],
)  # fmt: skip
def test_an_unknown_url_is_refused_with_the_forms_there_are(url: str | None) -> None:
    with pytest.raises(ValueError, match="redis://") as caught:
        open_store(url)
    assert "ter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_urls_open_their_adapters(tmp_path: Path, valkey: str) -> None:
    assert isinstance(open_store("memory://"), MemoryStore)
    assert isinstance(open_store(f"sqlite:///{tmp_path}/a/b/rows.db"), SqliteStore)
    assert (tmp_path / "a/b/rows.db").exists()
    assert isinstance(open_store(valkey), RedisStore)
    secure = open_store("rediss://user:pass@host:1/2?ssl_cert_reqs=none")
    assert isinstance(secure, RedisStore)
    assert repr(secure) == "RedisStore(rediss://host:1/2)"
    assert secure._client.connection_pool.connection_class is redis.SSLConnection


def test_a_missing_cluster_is_unavailable() -> None:
    with pytest.raises(StoreUnavailableError):
        RedisStore("redis+cluster://127.0.0.1:1", timeout_s=0.2)


@pytest.mark.fault("A `redis://` URL of a node of a Valkey or Redis cluster", "The error recommends `redis+cluster://`")
def test_a_node_of_a_cluster_is_named(valkey_cluster: str, tmp_path: Path) -> None:
    url = valkey_cluster.replace("redis+cluster://", "redis://")
    with pytest.raises(StoreUnavailableError, match=rf"a node of a cluster: .*EVERLONG_STORE_URL to redis\+cluster://{url[8:]},"):
        RedisStore(url).write([(Key("user", (f"u{n}",)), ROW) for n in range(9)])
    with running_valkey(tmp_path / "lone", "--cluster-enabled", "yes") as lone, pytest.raises(StoreUnavailableError, match="a cluster"):
        RedisStore(lone.url).read([KEY])  # none of the slots is its own


@pytest.mark.fault(
    "A Valkey user with exactly the commands listed in docs/access.md",
    "Rows are read, written and quarantined, and an error names any missing right",
)
def test_a_user_with_the_listed_commands_is_enough(valkey: str) -> None:
    quarantined = Quarantined("user", ("u",), "damaged", 1, "none", (0, 1, 0, 0), 4, b"row")
    with redis.Redis.from_url(valkey) as admin:
        rights = [f"+{command}" for command in COMMANDS]
        admin.execute_command("ACL", "SETUSER", "everlong", "reset", "on", ">pw", "resetchannels", "~*", "-@all", *rights)
        admin.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">pw", "~*", "-@all", "+hmget", "+client|setname")
        admin.script_flush()
        admin.set(entity_key(*KEY) + b"rights", b"of another type than rows have")
    store = RedisStore(valkey.replace("redis://", "redis://everlong:pw@"), "rights")
    assert store.write([(KEY, ROW)]) == [True]
    assert store.read([KEY]) == [ROW]
    store.quarantine([quarantined])
    [kept] = store.quarantined()
    store.release([kept.id])
    reader = RedisStore(valkey.replace("redis://", "redis://reader:pw@"), "rights")
    assert reader.read([KEY]) == [ROW]
    with pytest.raises(StoreUnavailableError, match=r"docs/access\.md"):
        reader.write([(KEY, ROW)])


def test_what_no_store_wrote_is_read_as_an_unreadable_row(valkey: str) -> None:
    store = RedisStore(valkey, "foreign")
    with redis.Redis.from_url(valkey) as client:
        client.hset(entity_key(*KEY) + b"foreign", HASH_FIELDS["user"].packed, b"no value")
    [row] = store.read([KEY])
    assert row is not None
    with pytest.raises(UnreadableRowError):
        unpack(UserRow, row.packed)


def test_a_busy_sqlite_file_is_unavailable_until_it_is_free(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "rows.db", busy_timeout_s=0.1)
    store.write([(KEY, ROW)])
    other = sqlite3.connect(tmp_path / "rows.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked"):
        store.write([(KEY, ROW)])
    assert store.read([KEY]) == [ROW]
    other.execute("ROLLBACK")
    other.close()
    assert store.write([(KEY, ROW)]) == [True]
    store.close()
    with pytest.raises(StoreUnavailableError):
        store.read([KEY])


def test_a_sqlite_file_is_shared_and_survives_reopening(tmp_path: Path) -> None:
    one, two = SqliteStore(tmp_path / "rows.db"), SqliteStore(tmp_path / "rows.db")
    one.write([(KEY, ROW)])
    assert two.write([(KEY, ROW._replace(log_position=LogPosition()))]) == [False]
    one.close()
    two.close()
    assert SqliteStore(tmp_path / "rows.db").read([KEY]) == [ROW]


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_opening_a_sqlite_file_waits_for_who_writes_it_first(tmp_path: Path, begin: str) -> None:
    first = sqlite3.connect(tmp_path / "rows.db", isolation_level=None)
    first.execute(begin)
    with pytest.raises(StoreUnavailableError, match="locked"):
        SqliteStore(tmp_path / "rows.db", busy_timeout_s=0.1)
    with ThreadPoolExecutor(1) as second:
        opening = second.submit(SqliteStore, tmp_path / "rows.db", busy_timeout_s=30)
        sleep(0.2)
        first.execute("COMMIT")
        store = opening.result()
    assert store.write([(KEY, ROW)]) == [True]
    first.close()
    store.close()


def test_writers_of_one_sqlite_file_wait_for_each_other(tmp_path: Path) -> None:
    def write(start: int) -> None:
        store = SqliteStore(tmp_path / "rows.db", busy_timeout_s=30)
        for n in range(start, 100, 4):
            store.write([(Key("user", (str(key),)), Stored(b"%d" % n, LogPosition(0, n, n, n), n)) for key in range(5)])
        store.close()

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(write, range(4)))
    assert SqliteStore(tmp_path / "rows.db").read([KEY._replace(entities=("4",))]) == [Stored(b"99", LogPosition(0, 99, 99, 99), 99)]


def test_what_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "rows.db").write_bytes(b"no database" * 100)
    with pytest.raises(StoreUnavailableError, match="not a database"):
        SqliteStore(tmp_path / "rows.db")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command to make a certificate: install openssl")
def test_tls_with_a_certificate_that_is_checked(server: Valkey, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    with tls_in_front_of(server.port, certificate, key) as port:
        store = RedisStore(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}")
        assert store.write([(KEY, ROW)]) == [True]
        assert store.read([KEY]) == [ROW]
        with pytest.raises(StoreUnavailableError, match="certificate"):
            RedisStore(f"rediss://127.0.0.1:{port}", retries=0).read([KEY])
        store.close()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 and its key."""
    places = folder / "server.crt", folder / "server.key"
    wanted = "req -x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=test -addext"
    command = ["openssl", *wanted.split(), "subjectAltName=IP:127.0.0.1", "-out", str(places[0]), "-keyout", str(places[1])]
    subprocess.run(command, check=True, capture_output=True)
    return places


@contextmanager
def tls_in_front_of(port: int, certificate: Path, key: Path) -> Iterator[int]:
    """The port of a TLS endpoint that forwards to a plain one: the embedded Valkey is built without TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        plain_reader, plain_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, plain_writer), copy(plain_reader, writer), return_exceptions=True)

    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        starting = asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)
        endpoint = asyncio.run_coroutine_threadsafe(starting, loop).result(10)
        yield endpoint.sockets[0].getsockname()[1]
        loop.call_soon_threadsafe(endpoint.close)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()

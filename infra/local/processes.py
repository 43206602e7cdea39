"""Child processes that never outlive their parent: started, watched, restarted with backoff, stopped in order.

Linux sends the children SIGKILL when the THREAD that started them ends (infra.local.launcher), so only one long-lived thread, the
main one, may use a `Supervisor`. It starts no thread; call `check` about every second.
"""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from infra.errors import ChildFailedError
from infra.local import launcher
from infra.local.private import UMASK, private_file, private_folder

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
STEADY_S = 60.0  # after running this long, a child restarts with the first backoff
TAIL_LINES = 15


class Companion(Protocol):
    """Something that works with a child and must stop before it."""

    def stop(self) -> None:
        """Stop."""


@dataclass
class Child:
    """A child process. `restart`: restart it when it ends, instead of failing; `companion` is stopped before it.

    `before_restart` cleans up after a child that was killed.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] | None
    log: Path
    restart: bool
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0  # monotonic seconds
    backoff_s: float = 0.0
    restarts: int = 0
    companion: Companion | None = None
    before_restart: Callable[[], object] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs, else None."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None


@dataclass
class Supervisor:
    """Starts children, each in its own session (Ctrl-C reaches only the parent) and with a log file in `log_dir`.

    Their logs and the files they create are readable by this user only. As a context manager it always stops all of them, last
    started first.
    """

    log_dir: Path
    stop_deadline_s: float = 20.0
    children: dict[str, Child] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None, restart: bool = False) -> Child:
        """Start a child; `command[0]` is an absolute path, `env` the complete environment (None: the parent's)."""
        private_folder(self.log_dir)
        child = Child(name, command, env, self.log_dir / f"{name}.log", restart)
        self.children[name] = child
        _spawn(child)
        return child

    def check(self) -> None:
        """Restart children that ended and have `restart`, each after its backoff.

        Raises:
            ChildFailedError: a child without `restart` ended.
        """
        now = time.monotonic()
        for child in self.children.values():
            code = child.process.poll() if child.process is not None else None
            if code is None:
                continue
            if not child.restart:
                raise ChildFailedError(child.name, code, child.log, tail(child.log))
            if now - child.started > STEADY_S:
                child.backoff_s = 0.0
            if now - child.started >= child.backoff_s:
                child.backoff_s = min(LONGEST_BACKOFF_S, max(FIRST_BACKOFF_S, child.backoff_s * 2))
                child.restarts += 1
                if child.before_restart is not None:
                    child.before_restart()
                _spawn(child)

    def pids(self) -> list[int]:
        """The process ids of running children."""
        return [child.pid for child in self.children.values() if child.pid is not None]

    def stop_all(self) -> None:
        """Stop all children one by one, last started first."""
        for name in reversed(list(self.children)):
            self.stop(name)

    def stop(self, *names: str) -> None:
        """Send SIGTERM to all named children, and SIGKILL to those still running at the deadline."""
        chosen = [self.children.pop(name) for name in names if name in self.children]
        try:
            for child in chosen:
                if child.companion is not None:
                    child.companion.stop()
                _signal(child, signal.SIGTERM)
            end = time.monotonic() + self.stop_deadline_s
            for child in chosen:
                with suppress(subprocess.TimeoutExpired):
                    if child.process is not None:
                        child.process.wait(max(0.0, end - time.monotonic()))
        finally:
            for child in chosen:
                _signal(child, signal.SIGKILL)
                if child.process is not None:
                    child.process.wait()

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.stop_all()
        finally:  # a second Ctrl-C while stopping: do not wait any longer
            for child in self.children.values():
                _signal(child, signal.SIGKILL)


def everlong(*arguments: str) -> list[str]:
    """The command line that runs `everlong ARGUMENTS` with this interpreter and installation."""
    return [sys.executable, "-m", "infra.cli", *arguments]


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log file, empty if it does not exist."""
    with suppress(OSError), log.open(errors="replace") as text:
        return "".join(deque(text, maxlen=lines)).rstrip()
    return ""


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Within the context, SIGTERM and SIGHUP raise KeyboardInterrupt like Ctrl-C, so that `finally` and `with` blocks run.

    So does SIGINT, which shells make background jobs ignore.
    """

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _spawn(child: Child) -> None:
    launched = [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), *child.command]
    log: BinaryIO
    with private_file(child.log).open("ab") as log:
        child.process = subprocess.Popen(
            launched, env=child.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, umask=UMASK
        )
    child.started = time.monotonic()


def _signal(child: Child, number: int) -> None:
    """Signal the child's process group, which includes its own children."""
    if child.process is not None and child.process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.process.pid, number)

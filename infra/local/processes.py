"""Child processes that never outlive their parent: started, watched, started again with backoff, stopped in order.

Linux sends the children SIGKILL when the THREAD that started them ends (infra.local.launcher), so a `Supervisor` is used by
one long-lived thread only: the main one. Nothing here starts a thread; `check` is to be called every second or so.
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
STEADY_S = 60.0  # a child that ran so long starts over with the first backoff
TAIL_LINES = 15


class Companion(Protocol):
    """Something that works with a child and must end before the child does."""

    def stop(self) -> None:
        """End."""


@dataclass
class Child:
    """A child process. `restart` says whether its death is repaired or is the parent's failure; `companion` is stopped before it.

    `before_restart` clears what a child that was killed left behind.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] | None
    log: Path
    restart: bool
    process: subprocess.Popen | None = None
    started: float = 0.0  # monotonic seconds
    backoff_s: float = 0.0
    restarts: int = 0
    companion: Companion | None = None
    before_restart: Callable[[], object] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs, else None."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None


@dataclass
class Supervisor:
    """Starts children, each in a session of its own (Ctrl-C reaches the parent only), with a log file each in `log_dir`.

    Their logs, and whatever they create, are readable by this user only.
    As a context manager it stops all of them, last started first, whatever happened inside.
    """

    log_dir: Path
    stop_deadline_s: float = 20.0
    children: dict[str, Child] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None, restart: bool = False) -> Child:
        """Start a child; `command[0]` is an absolute path, `env` is the whole environment (None: that of the parent)."""
        private_folder(self.log_dir)
        child = Child(name, command, env, self.log_dir / f"{name}.log", restart)
        self.children[name] = child
        _spawn(child)
        return child

    def check(self) -> None:
        """Start again what ended and may be started again, each after its backoff.

        Raises:
            ChildFailedError: another child ended.
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
        """The process ids of the children that run."""
        return [child.pid for child in self.children.values() if child.pid is not None]

    def stop_all(self) -> None:
        """Stop one child after the other, last started first."""
        for name in reversed(list(self.children)):
            self.stop(name)

    def stop(self, *names: str) -> None:
        """SIGTERM to the named children at once, SIGKILL to those that outlive the deadline."""
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
        finally:  # a second Ctrl-C while stopping: no more waiting
            for child in self.children.values():
                _signal(child, signal.SIGKILL)


def everlong(*arguments: str) -> list[str]:
    """The command line that runs `everlong ARGUMENTS` with this interpreter and installation."""
    return [sys.executable, "-m", "infra.cli", *arguments]


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log file, empty where there is none."""
    with suppress(OSError), log.open(errors="replace") as text:
        return "".join(deque(text, maxlen=lines)).rstrip()
    return ""


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP raise KeyboardInterrupt as Ctrl-C does, so that `finally` and `with` do their work.

    SIGINT does so too where a shell told a background job to ignore it.
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
    """Signal the child's whole group; what it may have started goes with it."""
    if child.process is not None and child.process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.process.pid, number)

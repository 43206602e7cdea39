"""`everlong demo` on the real parts: all is well, and nothing stays behind however it ends."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

DEMO = [sys.executable, "-m", "infra.cli", "demo", "--seconds", "8", "--rate", "20", "--users", "60"]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("EVERLONG_")}


def belonging_to(folder: Path) -> list[int]:
    """Processes, other than this one, that were given the folder by their command line or environment."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with suppress(OSError):
                said = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
                if str(folder).encode() in said:
                    found.append(int(process.name))
    return found


def gone(folder: Path, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while belonging_to(folder):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.timeout(600)
def test_demo_ends_well_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run([*DEMO, "--keep", str(tmp_path)], env=environment(), capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all is well" in done.stdout
    assert "does not add up" not in done.stdout
    assert "\x1b" not in done.stdout
    assert gone(tmp_path, 2.0)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_behind_when_it_is_ended(tmp_path: Path, end: signal.Signals) -> None:
    demo = subprocess.Popen([*DEMO, "--keep", str(tmp_path)], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + 240
        while not (tmp_path / "logs" / "refresh.log").exists() and time.monotonic() < limit:
            assert demo.poll() is None
            time.sleep(0.1)
        assert len(belonging_to(tmp_path)) >= 5
        demo.send_signal(end)
        assert demo.wait(60) != 0
        assert gone(tmp_path, 2.0)
    finally:
        demo.kill()
        demo.wait()

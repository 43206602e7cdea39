"""bench/README.md: one generated section a benchmark, replaced alone when that benchmark is run."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).parent / "README.md"
HEAD = """# Benchmarks

Written by `make bench`, section by section; do not edit. Compare figures of one table only: each was measured in one run.
Attempts that failed are in [LOG.md](LOG.md).
"""


def write(page: Path, name: str, section: str) -> None:
    """Put a section into the page, in the place of the one that stood there."""
    text = page.read_text() if page.exists() else HEAD
    marked = f"<!-- {name} -->\n{section}\n<!-- /{name} -->\n"
    place = re.compile(rf"<!-- {name} -->\n.*?<!-- /{name} -->\n", re.DOTALL)
    page.write_text(place.sub(lambda _: marked, text) if place.search(text) else f"{text}\n{marked}")


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return ["| " + " | ".join(cells) + " |" for cells in (heads, ["---", *["---:"] * (len(heads) - 1)], *rows)]


def stamp(loads: Sequence[str]) -> str:
    """Where, when and on what code it was measured; `loads` are those of the machine before and after."""
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    machine = f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{machine}; {when}; commit {_commit()}; load {' -> '.join(loads)}."


def load() -> str:
    """The machine's load over the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def _processor() -> str:
    with suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=PAGE.parent, capture_output=True, text=True, check=True).stdout.strip()

    with suppress(OSError, subprocess.CalledProcessError):
        return git("rev-parse", "--short=12", "HEAD") + (" with changes" if git("status", "--porcelain", "--", "..") else "")
    return "unknown"

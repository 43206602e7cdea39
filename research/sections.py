"""Generated sections of a page of markdown, each between two comments, and where and on what code they were made."""

import os
import platform
import re
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

CODE = ("*.py", "pyproject.toml", "constraints.txt")  # what a result follows from; pages and data beside it change nothing


def write_section(page: Path, name: str, section: str, head: str = "") -> None:
    """Write a section into the page: it replaces the one of that name, or is appended. A new page begins with `head`."""
    name = re.sub(r"[^\w.,() -]|--+", "_", name)
    text = page.read_text(encoding="utf-8") if page.exists() else head
    marked = f"<!-- {name} -->\n{section.rstrip()}\n<!-- /{name} -->\n"
    place = re.compile(rf"<!-- {re.escape(name)} -->\n.*?<!-- /{re.escape(name)} -->\n", re.DOTALL)
    made = place.sub(lambda _: marked, text) if place.search(text) else f"{text.rstrip()}\n\n{marked}".lstrip("\n")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(made, encoding="utf-8")


def machine() -> str:
    """Processor, cores this process may use, version of Python."""
    with suppress(AttributeError):
        return f"{_processor()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def now() -> str:
    """The time, UTC, to the minute."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def commit() -> str:
    """The commit of this program's code, and whether it was changed since; `unknown` outside a repository."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).parents[1]
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    with suppress(OSError, subprocess.CalledProcessError):
        return git("rev-parse", "--short=12", "HEAD") + (" with changes" if git("status", "--porcelain", "--", *CODE) else "")
    return "unknown"


def _processor() -> str:
    with suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()

"""bench/README.md: one generated section a benchmark, replaced alone when that benchmark is run."""

import os
from collections.abc import Sequence
from pathlib import Path

from research.sections import commit, machine, now, write_section

PAGE = Path(__file__).parent / "README.md"
HEAD = """# Benchmarks

Written by `make bench`, section by section; do not edit. Compare figures of one table only: each was measured in one run.
Attempts that failed are in [LOG.md](LOG.md).
"""


def write(page: Path, name: str, section: str) -> None:
    """Write a section into the page, replacing the previous one."""
    write_section(page, name, section, HEAD)


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return ["| " + " | ".join(cells) + " |" for cells in (heads, ["---", *["---:"] * (len(heads) - 1)], *rows)]


def stamp(loads: Sequence[str]) -> str:
    """Where, when and on what code it was measured; `loads` are those of the machine before and after."""
    return f"{machine()}; {now()}; commit {commit()}; load {' -> '.join(loads)}."


def load() -> str:
    """The machine's load over the last minute."""
    return f"{os.getloadavg()[0]:.1f}"

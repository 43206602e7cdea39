"""What docs/metrics.md says of each role's metrics, and what the pages and alert rules select, for comparison with a process."""

import re
from typing import NamedTuple

from tests.beside import ROOT

PAGE = ROOT / "docs" / "metrics.md"
SECTIONS = {
    "ingest": ("Every process", "Every worker", "Ingest worker"),
    "catalogue": ("Every process", "Every worker", "Catalogue worker"),
    "refresh": ("Every process", "Every worker", "Refresh worker"),
    "api": ("Every process", "API"),
}


class Family(NamedTuple):
    """A row of the page: the type, and each label with the values that the page lists, none where the set is open."""

    type: str
    labels: dict[str, frozenset[str]]


def documented(role: str) -> dict[str, Family]:
    """The families of a role, by name."""
    return {name: family for section in SECTIONS[role] for name, family in _table(section).items()}


def steps(role: str) -> set[str]:
    """The steps of a role."""
    return {step for step, roles in _steps() if role in roles}


def _table(section: str) -> dict[str, Family]:
    found = {}
    for cells in _rows(section):
        assert len(cells) == 5, cells
        assert cells[3], "each metric needs a meaning"
        labels = re.findall(r"`(\w+)`(?: \(([^)]*)\))?", cells[2])
        found[cells[0].strip("`")] = Family(cells[1], {label: frozenset(re.findall(r"`(\w+)`", values)) for label, values in labels})
    return found


def _steps() -> list[tuple[str, set[str]]]:
    return [(cells[0].strip("`"), set(re.findall(r"`(\w+)`", cells[1]))) for cells in _rows("Steps")]


def _rows(section: str) -> list[list[str]]:
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    assert text, f"{PAGE} has no section {section}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")]

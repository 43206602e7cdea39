"""What docs/metrics.md says of each role's metrics, and what pages and alert rules select, for comparison with running processes."""

import re
from collections.abc import Mapping
from typing import NamedTuple, get_args

from prometheus_client.parser import text_string_to_metric_families

from features.errors import StoreUnavailableError
from models.codes.drift import Action
from stream.errors import PublishError
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


SUFFIX = re.compile(r"_(bucket|count|sum)$")
SELECTOR = re.compile(r"\b((?:everlong|process|python)_\w+)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
OPEN = {"generation", "partition", "status", "instance"}  # labels whose values depend on the system
RARE = {"error": {StoreUnavailableError.__name__, PublishError.__name__}, "action": set(get_args(Action))}  # shown after a fault or drift
STEPS, RETRIES = "everlong_step_seconds", "everlong_retries_total"  # a retry names a step of the same vocabulary


class Live:
    """What a running process of each role shows at `/metrics`, given as text by role."""

    def __init__(self, shown: Mapping[str, str]) -> None:
        self._labels: dict[str, set[str]] = {}
        self._listed: dict[tuple[str, str], list[frozenset[str]]] = {}  # what the page lists, by role
        self._series: dict[str, list[dict[str, str]]] = {}
        for role, text in shown.items():
            for family in text_string_to_metric_families(text):
                name = family.name + "_total" if family.type == "counter" else family.name
                own = {*documented(role)[name].labels, *(["le"] if family.type == "histogram" else [])}
                self._labels.setdefault(name, {"job", "instance"}).update(own)
                for label, values in documented(role)[name].labels.items():
                    self._listed.setdefault((name, label), []).append(values)
                self._series.setdefault(name, []).extend({"job": role, **sample.labels} for sample in family.samples)

    def wrong_names(self, text: str) -> list[str]:
        """What a text names that no process exports."""
        named = set(re.findall(r"\beverlong_[a-z]\w*[a-z]\b", text))
        return [f"{name}: no process exports it" for name in sorted(named) if SUFFIX.sub("", name) not in self._labels]

    def wrong_selectors(self, text: str) -> list[str]:
        """Selectors in a text that match nothing that a process exports, with the reason."""
        found = ((SUFFIX.sub("", name), MATCHER.findall(matchers)) for name, matchers in SELECTOR.findall(text))
        return [complaint for name, matchers in found if (complaint := self._wrong(name, matchers))]

    def wrong_grouping(self, expression: str) -> list[str]:
        """Labels that a PromQL expression groups or joins by and that none of its metrics has."""
        names = {SUFFIX.sub("", name) for name in re.findall(r"\b(?:everlong|process)_\w+", expression)}
        known = {"job", "instance"}.union(*(self._labels.get(name, set()) for name in names))
        grouped = {label.strip() for labels in GROUPING.findall(expression) for label in labels.split(",")}
        return [f"{expression}: no metric has the label {label}" for label in sorted(grouped - known)]

    def _wrong(self, name: str, matchers: list[tuple[str, str, str]]) -> str:
        if name not in self._labels:
            return f"{name}: no process exports it"
        if unknown := {label for label, _, _ in matchers} - self._labels[name]:
            return f"{name} has no label {unknown}"
        if wrong := [(label, value) for label, _, value in matchers if label in RARE and value not in RARE[label]]:
            return f"{name}: no process exports {wrong}"
        if not self._series[name] and name != RETRIES:  # shown after a fault: only what the page lists is known
            wrong = [(label, value) for label, _, value in matchers if self._unlisted(name, label, value)]
            return f"{name}: the page does not list {wrong}" if wrong else ""
        closed = [one for one in matchers if one[0] not in OPEN | RARE.keys()]
        series = self._series[STEPS if name == RETRIES else name]
        if closed and not any(all(_matches(labels, *one) for one in closed) for labels in series):
            return f"{name}: no process exports {closed}"
        return ""

    def _unlisted(self, name: str, label: str, value: str) -> bool:
        """Whether the page lists the values of the label for every role that has it, and this one for none."""
        lists = self._listed.get((name, label), [])
        return bool(lists) and all(lists) and not any(value in listed for listed in lists)


def _matches(labels: Mapping[str, str], label: str, operator: str, value: str) -> bool:
    given = labels.get(label, "")
    if label == "le" and given:
        return float(given) == float(value)
    matched = bool(re.fullmatch(value, given)) if "~" in operator else given == value
    return matched != operator.startswith("!")

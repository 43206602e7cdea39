"""Tables of methods and figures, for a terminal, as JSON and as a section of a page of the manual."""

from collections.abc import Mapping, Sequence

import msgspec

from research.relevance.measures import Figure, Measured


class RelevanceReport(msgspec.Struct, frozen=True):
    """What was measured on one file."""

    data: str
    notes: list[str]  # sentences: split, threshold, sizes
    metrics: list[str]
    seeds: list[int]
    rows: dict[str, list[Figure]]  # method -> a figure a metric


def report(
    data: str,
    notes: Sequence[str],
    metrics: Sequence[str],
    seeds: Sequence[int],
    measured: Mapping[str, Sequence[Measured]],
    against: tuple[str, Sequence[str]],
) -> RelevanceReport:
    """The report, with a row of differences for the method `against[0]` and each of `against[1]` that was measured."""
    rows = {method: [one.figure() for one in mine] for method, mine in measured.items()}
    ours, others = against
    for other in others:
        if ours in measured and other in measured:
            pairs = zip(measured[ours], measured[other], strict=True)
            rows[f"{ours} less {other}"] = [mine.less(theirs).figure() for mine, theirs in pairs]
    return RelevanceReport(data, list(notes), list(metrics), list(seeds), rows)


def lines(report: RelevanceReport) -> str:
    """The report as lines of text."""
    wide = max(len(method) for method in report.rows)
    told = [
        f"{method:{wide}}  " + "  ".join(f"{metric} {figure}" for metric, figure in zip(report.metrics, row, strict=True))
        for method, row in report.rows.items()
    ]
    return "\n".join([*report.notes, "", *told])


def section(report: RelevanceReport, how: str) -> str:
    """The report as a section of a page; `how` says command, commit, machine and time."""
    head = ["method", *report.metrics]
    table = [head, ["---"] * len(head), *([method, *map(_cell, row)] for method, row in report.rows.items())]
    return "\n".join([f"## `{report.data}`", "", how, *report.notes, "", *("| " + " | ".join(row) + " |" for row in table)])


def _cell(figure: Figure) -> str:
    least, most = min(figure.seeds), max(figure.seeds)
    return f"{figure} ({least:.3f} to {most:.3f})" if least < most else str(figure)

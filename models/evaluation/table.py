"""An evaluation as text: lines for the terminal, Markdown tables for a page."""

from collections.abc import Mapping, Sequence

from models.evaluation.metrics import ALL, HIT_METRICS, NEW
from models.evaluation.report import Estimate, Report, Row, Section

SHOWN = ("recall@20", "recall@50", "recall@200", "hr@50", "ndcg@50")
CLAIMED = ("recall@50", "hr@50", "ndcg@50")
BRIEF = ("hr@20", "hr@50", "hr@200", "recall@50", "ndcg@50", *HIT_METRICS)
GROUPED = "recall@50"


def lines(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """The metrics in a bundle's manifest, one line per method, with intervals."""
    told = []
    for method, summary in metrics.items():
        names = [name for name in BRIEF if name in summary]
        parts = (f"{name} {summary[name]:.3f} [{summary[name + '_low']:.3f}, {summary[name + '_high']:.3f}]" for name in names)
        told.append(f"{method:22} " + "  ".join(parts))
    return "\n".join(told)


def markdown(report: Report) -> str:
    """All tables of a report."""
    told = _reach(report)
    for name in (ALL, NEW):
        section = report.section(name)
        if section is not None:
            told += ["", f"**{name.capitalize()}** ({section.moments:,} prediction points of {section.users:,} users)", ""]
            told += _main(section, report, name)
    groups = [section for section in report.sections if section.name not in (ALL, NEW)]
    if groups:
        told += [
            "",
            f"**{GROUPED} by group** (prediction points in brackets; warm: items with events before the cut, cold: without)",
            "",
            *_groups(groups),
        ]
    if report.categories:
        named = [(name, *_cells(row, HIT_METRICS)) for name, row in report.categories.items()]
        told += ["", "**Next category**", "", *table(("", *HIT_METRICS), named)]
    return "\n".join(told)


def verdict(difference: Estimate) -> str:
    """Whether the cascade is `ahead` or `behind`, or `level` because the interval of the paired difference contains 0."""
    if difference.low > 0:
        return "ahead"
    return "behind" if difference.high < 0 else "level"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (heads, rule, *rows)]


def number(estimate: Estimate) -> str:
    """Mean, interval, and standard deviation over seeds if there are several."""
    spread = "" if estimate.spread is None else f" ±{estimate.spread:.3f}"
    return f"{estimate.mean:.3f}{spread} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _main(section: Section, report: Report, name: str) -> list[str]:
    heads = ["", *SHOWN, *(["coverage@50"] if name == ALL else [])]
    rows = []
    for contender, row in section.rows.items():
        covered = [f"{sum(found) / len(found):.3f}" for found in [report.coverage[contender]] if name == ALL]
        rows.append((contender, *_cells(row, SHOWN), *covered))
    written = table(heads, rows)
    for ours, minus in section.minus.items():
        if minus:
            written += ["", f"Paired differences: `{ours}` minus each other row", ""]
            written += table(("", *CLAIMED), [(contender, *_signed(row)) for contender, row in minus.items()])
    return written


def _signed(row: Row) -> list[str]:
    cells = []
    for name in CLAIMED:
        found = row.get(name)
        cells.append("-" if found is None else f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}] {verdict(found)}")
    return cells


def _groups(sections: Sequence[Section]) -> list[str]:
    heads = ["", *(f"{section.name} ({section.moments:,})" for section in sections)]
    names = list(sections[0].rows)
    return table(heads, [(name, *(_cells(section.rows[name], (GROUPED,))[0] for section in sections)) for name in names])


def _cells(row: Row, names: Sequence[str]) -> list[str]:
    return [number(row[name]) if name in row else "-" for name in names]


def _reach(report: Report) -> list[str]:
    total = max(1, report.targets["all"])
    shares = ", ".join(f"{name} {count / total:.3f}" for name, count in report.targets.items() if name != "all")
    return [
        f"{report.moments:,} prediction points of {report.users:,} held-out users, {report.targets['all']:,} target items; "
        f"trained on {report.train_events:,} events of {report.train_users:,} users; catalogue {report.catalogue:,} items.",
        f"Ceilings, shares of the target items: {shares}.",
    ]

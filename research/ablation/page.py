"""Ablations as a section of docs/ablations.md, and for the terminal."""

from models.evaluation.report import Estimate
from models.evaluation.table import table
from research.ablation.ablation import AblationResult, Facts
from research.ablation.comparison import COLUMNS, Effect
from research.ablation.rows import DEFAULT
from research.sections import machine, now

HEAD = "# Ablations\n\nEach table is written by `everlong ablate --data PATH --out PAGE`; do not edit it.\n"


def heading(facts: Facts, title: str | None = None) -> str:
    """The title of a section: file, split, and a further title if a page has several sections of these."""
    return ", ".join(part for part in (facts.data, facts.split, title) if part)


def section(result: AblationResult, name: str, command: str) -> str:
    """A section of markdown."""
    facts, config = result.facts, result.facts.config
    how = [f"Seeds {', '.join(map(str, facts.seeds))}"]
    if facts.max_users is not None:
        how.append(f"a sample of {facts.max_users:,} users of the file")
    how.append(f"d {config.network.dim}, {config.training.epochs} epochs, trained on at most {config.training.per_user} baskets per user")
    how.append(f"tested on at most {config.training.test_per_user}: {facts.moments:,} prediction points of {facts.users:,} users")
    how.append(f"trained on {facts.train_events:,} events; catalogue {facts.catalogue:,} items")
    told = [
        f"## {name}",
        "",
        f"`{command}`",
        "",
        f"{'; '.join(how)}. Commit {', '.join(result.commits)}; {now()}; {machine()}.",
        "",
        *table(("", *COLUMNS, "seconds"), [_cells(found) for found in result.effects]),
    ]
    return "\n".join(told)


def text(result: AblationResult) -> str:
    """The terminal's output."""
    told = [f"{result.facts.data}, {result.facts.split}, seeds {result.facts.seeds}, {result.facts.moments:,} prediction points"]
    for found in result.effects:
        name, *cells = _cells(found)
        told.append(f"{name:40} " + "  ".join(cells))
    return "\n".join(told)


def _cells(found: Effect) -> tuple[str, ...]:
    beside = "" if found.beside in (DEFAULT, found.name) else f" (compared with {found.beside})"
    cells = [_cell(found, column) for column in COLUMNS]
    return (found.name + beside, *cells, f"{found.seconds:.0f}")


def _cell(found: Effect, column: str) -> str:
    score = f"{found.scores[column].mean:.3f}"
    if found.more is None:
        spread = found.scores[column].spread
        return score if spread is None else f"{score} ±{spread:.3f}"
    return f"{score}: {_signed(found.more[column])}"


def _signed(more: Estimate) -> str:
    said = " **better**" if more.low > 0 else " **worse**" if more.high < 0 else ""
    return f"{more.mean:+.3f} [{more.low:+.3f}, {more.high:+.3f}]{said}"

"""An evaluation as a section of docs/results.md, and for the terminal."""

from collections.abc import Mapping, Sequence

import msgspec

from models.config.retrieval import USUAL
from models.evaluation.metrics import ALL, NEW
from models.evaluation.report import CASCADE, Section
from models.evaluation.share_selection import TRIED, Choice, enough
from models.evaluation.table import CLAIMED, markdown, number, table, verdict
from research.evaluation.evaluation import EvaluationOutcome
from research.evaluation.repeats import RepeatShare


def page_head() -> str:
    """The beginning of a page without a section."""
    return "# Results of the models\n\nEach section is written by `everlong evaluate --data PATH --out PAGE`; do not edit it.\n"


def section(outcome: EvaluationOutcome, command: str) -> str:
    """A section in Markdown."""
    told = [
        f"## `{outcome.data}`, {outcome.report.split} split",
        "",
        f"`{command}`",
        "",
        f"{'; '.join(_facts(outcome))}. Commit {outcome.commit}; {outcome.date}; {outcome.machine}; "
        f"{outcome.seconds:.0f} s in all, peak memory {outcome.peak_bytes / 2**20:,.0f} MiB.",
        "",
        markdown(outcome.report),
    ]
    if outcome.codes:
        heads = ("histories", "events each", "codes alone", "codes and re-rank", "share of the attention that these hold", "best possible")
        cells = [
            (str(c.histories), f"{c.events:.0f}", f"{c.alone:.3f}", f"{c.reranked:.3f}", f"{c.weight:.3f}", f"{c.most:.3f}")
            for c in outcome.codes
        ]
        told += ["", f"**Codes compared with vectors**: the best {outcome.codes[0].kept} of a lifelong history, one row per seed", ""]
        told += table(heads, cells)
    if outcome.repeats:
        told += ["", "**Repeats merged into the trained baselines**", "", *_repeats(outcome.repeats)]
    if outcome.costs:
        rows = [(name, f"{cost.seconds / cost.seeds:.0f}") for name, cost in outcome.costs.items()]
        told += ["", "**Training**", "", *table(("", "CPU seconds per seed"), rows)]
    return "\n".join(told)


def _repeats(repeats: Mapping[str, Sequence[RepeatShare]]) -> list[str]:
    """The shares of repeats, and how they were chosen."""
    every = [share for shares in repeats.values() for share in shares]
    chosen = [share for share in every if share.points]
    lines = []
    if chosen:
        lines.append(
            f"Per seed the share of {', '.join(f'{share:g}' for share in TRIED['repeat'])} with the best recall@50 on {chosen[0].points:,} "
            f"prediction points of {chosen[0].users:,} users at the end of the training events."
        )
    if len(chosen) < len(every):
        lines.append("The share of the cascade is used where no configuration was compared or the users are too few to choose on.")
    cells = [
        (
            name,
            ", ".join(f"{share.share:g}" for share in shares),
            *(", ".join(f"{recall:.3f}" if share.points else "-" for share, recall in pairs) for pairs in _before_and_after(shares)),
        )
        for name, shares in repeats.items()
    ]
    return [*lines, "", *table(("", "share", "recall@50 there without repeats", "with repeats"), cells)]


def _before_and_after(shares: Sequence[RepeatShare]) -> tuple[list[tuple[RepeatShare, float]], list[tuple[RepeatShare, float]]]:
    return [(share, share.before) for share in shares], [(share, share.after) for share in shares]


def _facts(outcome: EvaluationOutcome) -> list[str]:
    """The settings of the evaluation, in words."""
    facts = [f"Seeds {', '.join(map(str, outcome.seeds))}"]
    if len(outcome.seeds) == 1:
        facts[0] = f"One seed ({outcome.seeds[0]}): no claim"
    if outcome.bundle is not None:
        facts.append(
            "a given bundle" + (f", without the {outcome.left_out:,} users on whom its shares were chosen" if outcome.left_out else "")
        )
    config = outcome.config
    if outcome.bundle is None:
        training = config.training
        epochs = "1 epoch" if training.epochs == 1 else f"{training.epochs} epochs"
        facts.append(f"d {config.network.dim}, {epochs}, trained on at most {training.per_user} baskets per user")
    if outcome.report.split == "temporal":
        facts.append(f"at most {config.training.test_per_user} baskets per user tested")
    if outcome.max_users is not None:
        facts.append(f"a sample of {outcome.max_users:,} users of the file")
    if outcome.test_users is not None and outcome.report.users >= outcome.test_users:
        facts.append(f"a sample of {outcome.test_users:,} test users")
    if outcome.choice is not None:
        facts.append(_shares(outcome.choice))
    facts.append(f"purchases {'excluded from' if outcome.exclude_bought else 'kept in'} all lists")
    if outcome.repeats:
        tried = "1 configuration" if outcome.trials == 1 else f"{outcome.trials} configurations"
        facts.append(f"trained baselines: {tried} tried, at most {outcome.budget_s:.0f} s per seed")
    if outcome.refused_rows:
        facts.append(f"{outcome.refused_rows:,} rows were rejected")
    return facts


def _shares(choice: Choice) -> str:
    """The shares that were chosen, and on what."""
    if not enough(choice.users):
        return f"default shares of lists, since {choice.users} users are too few to choose on"
    given = msgspec.structs.asdict(choice.shares)
    changed = ", ".join(f"{name} {share:g}" for name, share in given.items() if share != getattr(USUAL, name))
    gain = f"recall@50 {choice.before:.3f} -> {choice.after:.3f}" if changed else f"recall@50 {choice.after:.3f}"
    return f"shares of lists chosen on {choice.moments:,} prediction points before the cut: {changed or 'the default ones'} ({gain} there)"


def text(outcome: EvaluationOutcome) -> str:
    """The terminal's output: the main table, paired verdicts and the ceilings."""
    report = outcome.report
    told = [f"{outcome.data}, {report.split} split, seeds {outcome.seeds}, {report.moments:,} prediction points of {report.users:,} users"]
    for name in (ALL, NEW):
        found = report.section(name)
        if found is not None:
            told += ["", *_lines(found)]
    named = {method: " ".join(f"{metric} {number(row[metric])}" for metric in row) for method, row in report.categories.items()}
    told += ["", *(f"{method:22} {cells}" for method, cells in named.items())]
    total = max(1, report.targets["all"])
    reach = ", ".join(f"{name} {count / total:.3f}" for name, count in report.targets.items() if name != "all")
    told += ["", f"of the target items: {reach}"]
    if outcome.choice is not None:
        told.append(_shares(outcome.choice))
    return "\n".join(told)


def _lines(found: Section) -> list[str]:
    told = [f"{found.name} ({found.moments:,} prediction points of {found.users:,} users); paired: cascade minus each"]
    for contender, row in found.rows.items():
        cells = "  ".join(f"{metric} {number(row[metric])}" for metric in CLAIMED if metric in row)
        minus = found.minus.get(CASCADE, {}).get(contender, {})
        said = ", ".join(f"{verdict(minus[metric])} {minus[metric].mean:+.3f}" for metric in CLAIMED[:1] if metric in minus)
        told.append(f"{contender:24} {cells}  {said}".rstrip())
    return told

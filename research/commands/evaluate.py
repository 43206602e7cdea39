"""The command that evaluates recommendations on any file of events."""

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.files import MAX_REFUSED, Choices, Columns, Kind, MaxRefused, ProductColumns, ProductsFile, TimeUnit, open_file
from infra.terminal import AsJson, moment_ms, print_json, print_text, progress, say

if TYPE_CHECKING:
    from research.evaluation.evaluation import EvaluationOutcome


class SplitName(StrEnum):
    """How what is tested is held out."""

    TEMPORAL = "temporal"
    USERS = "users"


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(evaluate)


def evaluate(
    data: Annotated[str, typer.Option(help="`shop` for the simulated shop's history, or a file as `everlong replay` takes.")],
    bundle: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Evaluate this bundle. Default: train one per seed.")
    ] = None,
    products: ProductsFile = None,
    columns: Columns = "",
    product_columns: ProductColumns = "",
    kind: Kind = None,
    time_unit: TimeUnit = None,
    max_refused: MaxRefused = MAX_REFUSED,
    baselines: Annotated[str, typer.Option(help="`simple`, `all`, `none`, or names separated by commas.")] = "simple",
    split: Annotated[SplitName, typer.Option(help="Hold out the newest events, or a tenth of the users.")] = SplitName.TEMPORAL,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Trainings per trained model, each with another seed.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The first seed; also of splits and samples.")] = 0,
    holdout: Annotated[float, typer.Option(min=0.001, max=0.9, help="Share of events held out (temporal).")] = 0.1,
    cut: Annotated[
        str | None, typer.Option(help="Hold out everything from this time on instead: ISO time (UTC) or ms since the epoch.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the examples.")] = None,
    dim: Annotated[int | None, typer.Option(min=8, max=256, help="Dimension of vectors, a multiple of 8.")] = None,
    depth: Annotated[int | None, typer.Option(min=1, help="Baskets per user to train on.")] = None,
    per_user: Annotated[int | None, typer.Option(min=1, help="Baskets per user to test.")] = None,
    test_users: Annotated[int, typer.Option(min=1, help="Maximum users tested, drawn by seed.")] = 2000,
    max_users: Annotated[int | None, typer.Option(min=3, help="Maximum users read from the file, drawn by seed.")] = None,
    budget: Annotated[
        float | None, typer.Option(min=1, help="CPU seconds per seed to train a baseline. Default: as many as ours took, at least 60.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Configurations tried per trained baseline.")] = 4,
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="Markdown page whose tables are written or replaced.")] = None,
    choose_shares: Annotated[
        bool, typer.Option("--choose-shares/--usual-shares", help="Tune the shares of lists before the cut, by one more training.")
    ] = True,
    work: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder that keeps finished trainings, so that they are not repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hold out events, train on the rest, and print how well they are predicted compared with baselines, with intervals over users."""
    cut_ms = None if cut is None else moment_ms(cut, "--cut")
    reading = None if data == "shop" else open_file(Path(data), products, Choices(columns, product_columns, kind, time_unit, max_refused))

    from infra.settings import load_settings
    from infra.training.from_files import config_of
    from infra.wiring import choose_device
    from research.evaluation.evaluation import run
    from research.evaluation.inputs import EvaluationPlan
    from research.evaluation.page import page_head, section, text
    from research.sections import write_section

    chosen = _baselines(baselines)
    usual = config_of(epochs, dim)
    config = usual.replace(
        holdout=holdout,
        cut_ms=cut_ms,
        per_user=depth or usual.training.per_user,
        test_per_user=per_user or usual.training.test_per_user,
    )
    plan = EvaluationPlan(
        data=data,
        config=config,
        reading=reading,
        bundle=bundle,
        baselines=chosen,
        split=split.value,
        seed=seed,
        seeds=seeds,
        max_users=max_users,
        test_users=test_users,
        budget_s=budget,
        trials=trials,
        choose=choose_shares,
        device=choose_device(load_settings()),
        work=work,
    )
    outcome = run(plan, progress)
    if out is not None:
        write_section(out, f"{outcome.data}, {outcome.report.split} split", section(outcome, _command(outcome)), page_head())
        say(f"the tables are in {out}")
    if as_json:
        print_json(outcome)
    else:
        print_text(text(outcome))


def _baselines(asked: str) -> tuple[str, ...]:
    from models.evaluation.baselines import SIMPLE
    from research.baselines import NAMES

    groups = {"simple": SIMPLE, "all": (*SIMPLE, *NAMES), "none": ()}
    names: list[str] = []
    for name in (part.strip() for part in asked.split(",")):
        if name not in groups and name not in (*SIMPLE, *NAMES):
            raise typer.BadParameter(f"{name!r} is none of {', '.join((*groups, *SIMPLE, *NAMES))}", param_hint="--baselines")
        names += groups.get(name, (name,))
    return tuple(dict.fromkeys(names))


def _command(outcome: "EvaluationOutcome") -> str:
    """The command line as it was given, files by their names alone."""
    words = sys.argv[1:] if len(sys.argv) > 1 and sys.argv[1] == "evaluate" else ["evaluate", "--data", outcome.data]
    return shlex.join(["everlong", *(Path(word).name if "/" in word else word for word in words)])

"""The command that measures the gain of each setting."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.files import MAX_REFUSED, Choices, Columns, Kind, MaxRefused, ProductColumns, ProductsFile, TimeUnit, open_file
from infra.terminal import print_text, progress, say

if TYPE_CHECKING:
    from research.ablation.ablation import AblationResult


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(ablate)


def ablate(
    data: Annotated[str, typer.Option(help="`shop` for the simulated shop's history, or a file as `everlong replay` takes.")],
    rows: Annotated[
        str, typer.Option(help="`mechanisms`, `seminar`, `reranking`, `sensitivity`, `all`, or names of rows, separated by commas.")
    ] = "mechanisms",
    products: ProductsFile = None,
    columns: Columns = "",
    product_columns: ProductColumns = "",
    kind: Kind = None,
    time_unit: TimeUnit = None,
    max_refused: MaxRefused = MAX_REFUSED,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Trainings per row, each with another seed.")] = 3,
    holdout: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Share of events held out; as large a share of the rest is tested.")
    ] = 0.1,
    held_out: Annotated[bool, typer.Option(help="Test on held-out events: to confirm a choice, not to make it.")] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the examples.")] = None,
    dim: Annotated[int | None, typer.Option(min=8, max=256, help="Dimension of vectors, a multiple of 8.")] = None,
    depth: Annotated[int | None, typer.Option(min=1, help="Baskets per user to train on.")] = None,
    per_user: Annotated[int | None, typer.Option(min=1, help="Baskets per user to test.")] = None,
    test_users: Annotated[int, typer.Option(min=1, help="Maximum users tested, drawn by seed.")] = 2000,
    max_users: Annotated[int | None, typer.Option(min=3, help="Maximum users read from the file, drawn by seed.")] = None,
    work: Annotated[Path, typer.Option(file_okay=False, help="Folder that keeps finished rows, so that they are not repeated.")] = Path(
        ".everlong/ablations"
    ),
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="Markdown page that gets the table, row by row.")] = None,
    title: Annotated[str | None, typer.Option(help="Title of the table, if a page has several of one file.")] = None,
) -> None:
    """Change one setting at a time, train, and print the effect compared with the default, with intervals.

    The tested events lie before the held-out part, so that a choice is not made on held-out events.
    """
    reading = None if data == "shop" else open_file(Path(data), products, Choices(columns, product_columns, kind, time_unit, max_refused))

    from infra.settings import load_settings
    from infra.training.from_files import config_of
    from infra.wiring import choose_device
    from research.ablation.ablation import ablate as run
    from research.ablation.page import HEAD, heading, section, text
    from research.ablation.rows import chosen
    from research.evaluation.inputs import EvaluationPlan
    from research.sections import write_section

    usual = config_of(epochs, dim)
    config = usual.replace(
        holdout=holdout, per_user=depth or usual.training.per_user, test_per_user=per_user or usual.training.test_per_user
    )
    device = choose_device(load_settings())
    plan = EvaluationPlan(data, config, reading, seeds=seeds, max_users=max_users, test_users=test_users, device=device)

    def write(result: "AblationResult") -> None:
        if out is not None:
            name = heading(result.facts, title)
            write_section(out, name, section(result, name, _command()), HEAD)

    result = run(plan, chosen(rows), work, progress, write, held_out=held_out)
    write(result)
    if out is not None:
        say(f"the table is in {out}")
    print_text(text(result))


def _command() -> str:
    """The command line as it was given, files by their names alone."""
    return shlex.join(["everlong", *(Path(word).name if "/" in word else word for word in sys.argv[1:])])

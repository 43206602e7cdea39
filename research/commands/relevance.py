"""The command that measures how well queries find items."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.files import MAX_REFUSED, Choices, Columns, Kind, MaxRefused, ProductColumns, ProductsFile, TimeUnit, open_file
from infra.terminal import AsJson, print_json, print_text, progress, say

if TYPE_CHECKING:
    from features.sources import Reading
    from models.config import Config
    from research.relevance.relevance import Vectors
    from research.relevance.report import RelevanceReport

HEAD = "# How well queries find items\n"


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(relevance)


def relevance(
    data: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Graded pairs of query and title, or events with searches.")],
    seed: Annotated[list[int] | None, typer.Option(help="Can be repeated: everything is trained once per seed. Default: 0.")] = None,
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="Page whose section with the table is written or replaced.")] = None,
    holdout: Annotated[float, typer.Option(min=0.01, max=0.9, help="Share held out: of the queries, or of the newest clicks.")] = 0.2,
    dim: Annotated[int | None, typer.Option(min=8, max=512, help="Dimension of vectors, a multiple of 8.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes of pretraining, and of fine-tuning.")] = None,
    products: ProductsFile = None,
    columns: Columns = "",
    product_columns: ProductColumns = "",
    kind: Kind = None,
    time_unit: TimeUnit = None,
    max_refused: MaxRefused = MAX_REFUSED,
    ablations: Annotated[bool, typer.Option(help="Also train the search unit without some of its parts.")] = True,
    sentences: Annotated[bool, typer.Option(help="Use the frozen sentence encoder if the extra `sentences` is installed.")] = True,
    as_json: AsJson = False,
) -> None:
    """Train SEMINAR's search unit and compare it with BM25 and popularity on held-out queries or clicks.

    A table with the columns query, title and relevance (or search_term, product_title) is split by queries; a file of events
    as `everlong replay` takes it is split by time, and the next click after a query is asked for.
    """
    from time import process_time

    from models.config import Config, NetworkConfig, PretrainingConfig
    from research.relevance.judgements import is_judgements

    started_s = process_time()
    choices = Choices(columns, product_columns, kind, time_unit, max_refused)
    reading = None if is_judgements(data) else open_file(data, products, choices)
    pretraining = PretrainingConfig(epochs=epochs) if epochs else PretrainingConfig()
    config = Config(network=NetworkConfig(dim=dim or 64)).replace(pretraining=pretraining)
    made = _report(data, reading, config, epochs, seed or [0], holdout, ablations, sentences)
    took_s = process_time() - started_s
    if out is not None:
        from research.relevance.report import section
        from research.sections import commit, machine, now, write_section

        given = [("--seed", n) for n in made.seeds] + [(name, n) for name, n in (("--dim", dim), ("--epochs", epochs)) if n]
        told = " ".join(f"{name} {n}" for name, n in given)
        made_by = f"commit {commit()}; {now()}; {machine()}"
        how = f"`everlong relevance --data {data.name} {told}`: {took_s / 60:.0f} minutes of processor time; {made_by}."
        write_section(out, made.data, section(made, how), HEAD)
        say(f"the table is in {out}")
    if as_json:
        print_json(made)
        return
    from research.relevance.report import lines

    print_text(lines(made))


def _report(
    data: Path,
    reading: "Reading | None",
    config: "Config",
    tuning: int | None,
    seeds: list[int],
    holdout: float,
    ablations: bool,
    sentences: bool,
) -> "RelevanceReport":
    with ExitStack() as stack:
        bar: list[Callable[[int, int], None]] = []

        def tell(phase: str, step: int, steps: int, loss: float) -> None:
            if step == 1:
                stack.close()
                bar[:] = [stack.enter_context(progress(phase))]
            bar[0](step, steps)

        if reading is None:
            from research.relevance.judgements import read_judgements
            from research.relevance.relevance import relevance_report

            judgements = read_judgements(data)
            vectors = _vectors(judgements.queries, judgements.titles) if sentences else None
            return relevance_report(data.name, judgements, config, seeds, vectors, holdout=holdout, ablations=ablations, progress=tell)
        from research.relevance.next_click import next_click_report
        from research.relevance.seminar import TUNING

        assert reading is not None
        events, items = list(reading.events()), [*reading.described(), *reading.undescribed()]
        return next_click_report(
            data.name, events, items, config, seeds, tuning=tuning or TUNING, holdout=holdout, ablations=ablations, progress=tell
        )


def _vectors(queries: list[str], titles: list[str]) -> "Vectors | None":
    from research.relevance.relevance import Vectors
    from research.relevance.sentences import encode, installed

    if not installed():
        say("the extra `sentences` is not installed: no row for the frozen sentence encoder")
        return None
    say(f"encoding {len(queries):,} queries and {len(titles):,} titles with the frozen sentence encoder")
    return Vectors(encode(queries), encode(titles))

"""Input files of commands: read before anything starts, described on stderr, refused if too many rows cannot be used."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from infra.terminal import say, when

if TYPE_CHECKING:
    from features.sources import Products, Reading, Refusals

MAX_REFUSED = 0.05
SHOWN = 3

EventsFile = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="Parquet, CSV with a header, JSON lines or array (docs/data.md).")
]
ProductsFile = Annotated[
    Path | None, typer.Option("--products", exists=True, dir_okay=False, help="Table of products: titles, categories, prices, attributes.")
]
Columns = Annotated[str, typer.Option(help="Roles of columns, such as user=customer_no,item=sku. Default: recognised by name.")]
ProductColumns = Annotated[str, typer.Option(help="The same for --products, as item=sku,title=label.")]
Kind = Annotated[str | None, typer.Option(help="Every row is of this kind: search, click, cart, favourite or order.")]
TimeUnit = Annotated[str | None, typer.Option(help="Unit of numeric times: s, ms, us or ns. Default: recognised by value.")]
MaxRefused = Annotated[float, typer.Option(min=0, max=1, help="Share of rows that may be refused; above it the command stops.")]


class Choices(NamedTuple):
    """The options of a command on how a file is read."""

    columns: str = ""
    product_columns: str = ""
    kind: str | None = None
    time_unit: str | None = None
    max_refused: float = MAX_REFUSED


USUAL = Choices()
_HINTS = {
    "unknown_kind": "correct them, choose another column by --columns kind=COLUMN, or set the kind of every row with --kind",
    "beyond_retention": "raise EVERLONG_RETENTION_MS to take them",
    "missing_user": "choose another column by --columns user=COLUMN",
    "missing_item": "choose another column by --columns item=COLUMN",
    "implausible_time": "correct them, or set the unit with --time-unit",
}


def open_file(path: Path, products: Path | None = None, choices: Choices = USUAL) -> "Reading":
    """Read a file and describe its interpretation on stderr.

    Raises:
        SourceError: it, or the table of products, cannot be read, has no event, or has more refused rows than allowed.
    """
    from features.errors import SourceError

    reading = read_file(path, products, choices)
    for sentence in told(reading):
        say(sentence)
    if (refused := refusal(reading, choices.max_refused)) is not None:
        reading.close()
        raise SourceError(refused)
    return reading


def read_file(path: Path, products: Path | None, choices: Choices) -> "Reading":
    """Read a file with these options and the settings.

    Raises:
        SourceError: it, or the table of products, cannot be read.
    """
    from features.errors import SourceError
    from features.sources import How, Products, Reading, Unit
    from features.sources.columns import Product, parse_columns
    from features.sources.kinds import NAMES
    from infra.clock import wall_ms
    from infra.settings import load_settings

    if choices.kind is not None and choices.kind not in NAMES:
        raise typer.BadParameter(f"{choices.kind!r} is none of {', '.join(NAMES)}", param_hint="--kind")
    if choices.time_unit is not None and choices.time_unit not in set(Unit):
        raise typer.BadParameter(f"{choices.time_unit!r} is none of {', '.join(Unit)}", param_hint="--time-unit")
    try:
        columns = parse_columns(choices.columns)
    except SourceError as error:
        raise typer.BadParameter(str(error), param_hint="--columns") from error
    try:
        product_columns = parse_columns(choices.product_columns, Product)
    except SourceError as error:
        raise typer.BadParameter(str(error), param_hint="--product-columns") from error
    unit = None if choices.time_unit is None else Unit(choices.time_unit)
    how = How(columns, choices.kind, unit, wall_ms(), load_settings().time_rules)
    table = None if products is None else Products(products, product_columns)
    return Reading(path, how, table)


def refusal(reading: "Reading", max_refused: float) -> str | None:
    """The reason why a command refuses a file; None if it does not."""
    for what, refusals, rows in _parts(reading):
        if (share := refusals.total / max(1, rows)) > max_refused:
            first = refusals.first[0]
            hint = _HINTS.get(refusals.counts.most_common(1)[0][0], "correct them")
            without = f", or go on without them by --max-refused {min(1.0, share + 0.01):.2f}" if refusals.total < rows else ""
            return (
                f"{what}: {refusals.total:,} of {rows:,} rows ({share:.0%}) are refused, {refusals.sentence()}; first row {first.row}: "
                f"{first.detail}; {hint}{without}"
            )
    return None if reading.count else f"{reading.path.name} contains no event: docs/data.md describes the accepted files"


def told(reading: "Reading") -> Iterator[str]:
    """The interpretation of a file, in a few sentences."""
    from features.sources.columns import listed

    yield f"{reading.path.name}: {reading.detected}, {reading.rows:,} rows, {reading.count:,} events"
    if reading.table is not None:
        used = ", ".join(f"{role}={name}" for role, name in reading.table.columns.used.items())
        rest = listed(reading.table.columns.rest)
        yield f"  columns: {used}; times are {reading.table.times}" + (f"; not used: {rest}" if rest else "")
    yield from (f"  {note}" for note in reading.notes)
    if reading.products is not None:
        yield from _told_products(reading, reading.products)
    for what, refusals, rows in _parts(reading):
        if refusals.total:
            yield f"  {what}: {refusals.total:,} of {rows:,} rows are refused, {refusals.sentence()}"
            yield from (f"    row {first.row}: {first.detail} ({first.reason})" for first in refusals.first[:SHOWN])


def span(first_ms: int | None, last_ms: int | None) -> str:
    """A range of time for people."""
    return "no time" if first_ms is None or last_ms is None else f"{when(first_ms)} to {when(last_ms)} UTC"


def _told_products(reading: "Reading", products: "Products") -> Iterator[str]:
    from features.sources.columns import listed

    used = ", ".join(f"{role}={name}" for role, name in products.columns.used.items())
    attributes = ", ".join(products.attributes)
    yield (
        f"{products.path.name}: {products.detected}, {len(products):,} products; columns: {used}"
        + (f"; attributes: {attributes}" if attributes else "")
        + (f"; not used: {listed(products.ignored)}" if products.ignored else "")
    )
    touched = {item.item_id for item in reading.touched()}
    both = len(touched & products.ids)
    yield f"  {both:,} of {len(touched):,} items of the events are described; {len(products) - both:,} products have no events"
    yield from (f"  {note}" for note in products.notes)


def _parts(reading: "Reading") -> Iterator[tuple[str, "Refusals", int]]:
    yield reading.path.name, reading.refusals, reading.rows
    if reading.products is not None:
        yield reading.products.path.name, reading.products.refusals, reading.products.rows

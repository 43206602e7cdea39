"""The command that describes a file, without starting anything."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import typer

from infra.files import (
    MAX_REFUSED,
    Choices,
    Columns,
    EventsFile,
    Kind,
    MaxRefused,
    ProductColumns,
    ProductsFile,
    TimeUnit,
    read_file,
    refusal,
    span,
)
from infra.terminal import AsJson, print_json, print_text, say

if TYPE_CHECKING:
    from features.sources.summary import Described, Refusing, Summary

REFUSED = 3
SHOWN = 5


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(check)


def check(
    path: EventsFile,
    products: ProductsFile = None,
    columns: Columns = "",
    product_columns: ProductColumns = "",
    kind: Kind = None,
    time_unit: TimeUnit = None,
    max_refused: MaxRefused = MAX_REFUSED,
    as_json: AsJson = False,
) -> None:
    """Print how a file is read: format, columns, kinds, times, users, items, products, refused rows.

    Nothing is started or written. Exit code 3 if the other commands would refuse the file.
    """
    from features.errors import SourceError
    from features.sources.summary import summarise

    try:
        with read_file(path, products, Choices(columns, product_columns, kind, time_unit, max_refused)) as reading:
            found = summarise(reading)
            refused = refusal(reading, max_refused)
    except SourceError as error:
        if as_json:
            print_json({"file": path.name, "refused_because": str(error)})
        say(f"everlong: {error}")
        raise typer.Exit(REFUSED) from error
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(found) | {"refused_because": refused})
    else:
        for line in text(found):
            print_text(line)
    if refused is not None:
        say(f"everlong: {refused}")
        raise typer.Exit(REFUSED)


def text(found: "Summary") -> Iterator[str]:
    """The summary for people, as lines."""
    from features.sources.columns import listed

    yield f"{found.file}: {found.format}"
    yield f"  rows        {found.rows:,}, {found.events:,} events"
    if found.columns:
        yield f"  columns     {_pairs(found.columns)}"
    if found.ignored:
        yield f"  not used    {listed(found.ignored)}"
    yield f"  times       {found.time}; {span(found.first_ms, found.last_ms)}"
    yield f"  kinds       {_counts(found.kinds) or 'none'}"
    yield f"  users       {found.users:,}"
    yield f"  items       {found.items:,} in {found.categories:,} categories"
    yield f"  baskets     {found.baskets:,}"
    yield f"  searches    {found.queries:,} different"
    yield from (f"  embeddings  {name} {_widths(widths)}" for name, widths in found.embeddings.items())
    yield from (f"  note        {note}" for note in found.notes)
    yield from (f"  suspicious  {sentence}" for sentence in found.suspicious)
    yield from _refused(found.refused)
    if found.products is not None:
        yield from _products(found.products, found.items)


def _products(found: "Described", items: int) -> Iterator[str]:
    from features.sources.columns import listed

    yield f"{found.file}: {found.format}"
    yield f"  products    {found.products:,} in {found.rows:,} rows"
    yield f"  columns     {_pairs(found.columns)}"
    if found.attributes:
        yield f"  attributes  {', '.join(found.attributes)}"
    if found.ignored:
        yield f"  not used    {listed(found.ignored)}"
    yield from (f"  embeddings  {name} {_widths(widths)}" for name, widths in found.embeddings.items())
    untouched = found.products - found.touched
    yield f"  overlap     {found.touched:,} of {items:,} items of the events are described; {untouched:,} products have no events"
    yield from (f"  note        {note}" for note in found.notes)
    yield from _refused(found.refused)


def _refused(found: "Refusing") -> Iterator[str]:
    if not found.rows:
        yield "  refused     none"
        return
    yield f"  refused     {found.rows:,} rows ({found.share:.1%}): {_counts(found.reasons)}"
    if found.kinds:
        yield f"              unknown kinds: {_counts(found.kinds)}"
    yield from (f"              row {row}: {sentence} ({reason})" for row, reason, sentence in found.first[:SHOWN])


def _pairs(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{role}={name}" for role, name in columns.items())


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _widths(widths: Mapping[int, int]) -> str:
    found = ", ".join(f"{count:,} of {width} numbers" for width, count in widths.items())
    return found if len(widths) < 2 else f"{found}: only one width is used, the others are ignored"

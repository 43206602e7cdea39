"""The live view of the demo: a table that is redrawn on a terminal; elsewhere a line every few seconds."""

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from infra.terminal import plain, safe, styled

LINE_EVERY_S = 5.0
REDRAWS_A_SECOND = 4


class Shown(NamedTuple):
    """A displayed candidate: item, title, category, path; `new` if the set before the click lacks it."""

    item: str
    title: str
    category: str
    path: str
    new: bool = False


class Picture(NamedTuple):
    """The figures of the view at one moment. Latencies are milliseconds from sending an event to receiving its candidates."""

    elapsed_s: float
    seconds: float
    events_per_s: float
    sent: int
    lag: int
    p50_ms: float | None
    p99_ms: float | None
    rows: int
    levels: Sequence[tuple[str, int]]
    dead: int
    user: str = ""
    click: str = ""
    before: Sequence[Shown] = ()
    after: Sequence[Shown] = ()


class LiveTable:
    """Displays pictures. Used as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=REDRAWS_A_SECOND, auto_refresh=False) if console.is_terminal else None
        self._line_at = 0.0

    def __enter__(self) -> "LiveTable":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, picture: Picture) -> None:
        """Display a picture; without a terminal, a line every few seconds."""
        if self._live is not None:
            self._live.update(Group(numbers(picture), *comparison(picture)), refresh=True)
        elif time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + LINE_EVERY_S
            self._console.print(safe(line(picture)), soft_wrap=True)


def line(picture: Picture) -> str:
    """The picture as one line of plain text."""
    levels = " ".join(f"{level} {count}" for level, count in picture.levels)
    return (
        f"{picture.elapsed_s:5.1f} s  {picture.events_per_s:6.1f} events/s  lag {picture.lag}  "
        f"event to candidates p50 {milliseconds(picture.p50_ms)} p99 {milliseconds(picture.p99_ms)}  "
        f"rows {picture.rows:,}  candidate sets: {levels or 'none'}  dead letters {picture.dead}"
    )


def numbers(picture: Picture) -> Table:
    """The table of figures."""
    table = Table(title=f"Everlong, live: {picture.elapsed_s:.0f} of {picture.seconds:.0f} s", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right", min_width=14)
    table.add_row("events sent", f"{picture.sent:,}")
    table.add_row("events/s", f"{picture.events_per_s:,.1f}")
    table.add_row("lag (sent, not yet applied)", f"{picture.lag:,}")
    table.add_row("event to candidates, p50", milliseconds(picture.p50_ms))
    table.add_row("event to candidates, p99", milliseconds(picture.p99_ms))
    table.add_row("rows written", f"{picture.rows:,}")
    for level, count in picture.levels:
        table.add_row(f"candidate sets, {level}", f"{count:,}")
    table.add_row("dead letters", f"{picture.dead:,}")
    return table


def comparison(picture: Picture) -> Iterable[Table]:
    """One user's candidates before and after a click, side by side; empty until there is a user."""
    if not picture.user:
        return []
    table = Table(title=plain(f"candidates of {picture.user} before and after: {picture.click}"), title_justify="left")
    for column in ("before", "category", "path", "after", "category", "path"):
        table.add_column(column)
    empty = Shown("", "", "", "")
    for place in range(max(len(picture.before), len(picture.after))):
        old = picture.before[place] if place < len(picture.before) else empty
        new = picture.after[place] if place < len(picture.after) else empty
        added = styled(("+ " if new.new else "", "green"), (name(new), ""))
        table.add_row(*map(plain, (name(old), old.category, old.path)), added, *map(plain, (new.category, new.path)))
    return [table]


def name(shown: Shown) -> str:
    """The title and id of an item."""
    return f"{shown.title} ({shown.item})" if shown.title else shown.item


def milliseconds(value: float | None) -> str:
    """A latency for people."""
    return "-" if value is None else f"{value:,.0f} ms"

"""How commands speak: JSON or tables on stdout, progress and complaints on stderr.

Ids, titles, searches and records are other people's text. Whatever of it reaches a terminal or a log goes through `safe`, and to rich
as `plain` text, never as markup.
"""

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer

from features.errors import EverlongError
from infra.repeats import Repeats

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, nothing else, on stdout.")]

CHATTY = ("aiokafka", "faiss", "faust", "kafka", "mode", "stream.kafka.transport", "stream.kafka.app")  # Faust logs under our names
SLOW_STEP = "kafka.net.selector", "blocking the event loop"  # kafka-python's note that the machine was busy for 0.1 s


# Control characters, half characters, line separators, marks that turn the direction of text round, and invisible tags.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]")
_KEPT = "\n\t"


def safe(value: object, lines: bool = False) -> str:
    r"""Text as a terminal or a log may show it: what would steer the terminal or hide text becomes an escape such as `\x1b`.

    Line ends and tabs become escapes too, unless `lines`.
    """
    return _UNSAFE.sub(lambda found: found[0] if lines and found[0] in _KEPT else found[0].encode("unicode_escape").decode(), str(value))


def plain(value: object) -> "Text":
    """Text for rich, without markup and without emoji codes; see `safe`."""
    return styled((value, ""))


def styled(*parts: tuple[object, str]) -> "Text":
    """As `plain`, of parts and the style of each."""
    from rich.text import Text

    return Text.assemble(*((safe(value), style) for value, style in parts))


def console(width: int | None = None) -> "Console":
    """Stdout for people: nothing in a string is markup, and a reader that goes away, as `head` does, ends the command quietly."""
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            _reader_gone(sys.stdout)

    return Quiet(width=width, markup=False, emoji=False, highlight=False)


def print_text(text: str) -> None:
    """Lines on stdout."""
    _write(safe(text, lines=True), sys.stdout)


def print_json(value: Any) -> None:
    """One JSON document; structs of msgspec as objects, bytes as base64."""
    import msgspec

    document = json.dumps(msgspec.to_builtins(value), ensure_ascii=False, indent=2)
    _write(_UNSAFE.sub(lambda found: found[0] if found[0] in _KEPT else json.dumps(found[0])[1:-1], document), sys.stdout)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table for people; plain text where stdout is no terminal."""
    from rich.table import Table

    table = Table(title=plain(title), title_justify="left")
    for column in columns:
        table.add_column(plain(column))
    for row in rows:
        table.add_row(*map(plain, row))
    shown = console(None if sys.stdout.isatty() else 160)
    shown.print(table)
    _write("", sys.stdout, end="")


def say(sentence: str) -> None:
    """A sentence for the person at the terminal, on stderr."""
    _write(safe(sentence, lines=True), sys.stderr)


def _write(text: str, stream: TextIO, end: str = "\n") -> None:
    try:
        print(text, file=stream, end=end, flush=True)
    except BrokenPipeError:
        _reader_gone(stream)


def _reader_gone(stream: TextIO) -> NoReturn:
    """End the command: nobody reads what it prints."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # else Python complains when it flushes at its end
    raise SystemExit(0)


def when(ts_ms: int) -> str:
    """A time stamp for people, UTC."""
    try:
        return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(ts_ms)


def moment_ms(told: str, option: str) -> int:
    """Milliseconds since the epoch that an option tells, in digits or as an ISO time; without a zone it is UTC."""
    if told.isdigit():
        return int(told)
    try:
        moment = datetime.fromisoformat(told)
    except ValueError:
        raise typer.BadParameter("write 2017-12-02, 2017-12-02T10:00 or milliseconds since the epoch", param_hint=option) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, moved by calling it with (done, in all); a line every tenth where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _tenths(what)
        return
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(safe(what), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _tenths(what: str) -> Callable[[int, int], None]:
    told = -1

    def tell(done: int, total: int) -> None:
        nonlocal told
        tenth = 10 * done // max(1, total)
        if tenth > told:
            told = tenth
            say(f"{what}: {done:,} of {total:,}")

    return tell


class LineFormatter(logging.Formatter):
    """A log line is one line, whatever the text in it holds; only a traceback follows it, indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line."""
        record.message = safe(record.message.rstrip())
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        """The traceback."""
        return indent(safe(super().formatException(ei), lines=True), "    ")


def show_logs(level: str) -> None:
    """Log lines of this process go to stderr, few of a kind a minute; those of libraries from WARNING on, with DEBUG from INFO on.

    Never their DEBUG: the Kafka clients then log their configuration and the bytes that they send, the password among them.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    handler.addFilter(Repeats())
    logging.basicConfig(level=level, handlers=[handler])
    least = logging.INFO if level == "DEBUG" else max(logging.WARNING, logging.getLevelName(level))
    for library in CHATTY:
        logging.getLogger(library).setLevel(least)
    name, noise = SLOW_STEP
    logging.getLogger(name).addFilter(lambda record: noise not in record.getMessage())


def complain(error: Exception) -> None:
    """The error as a sentence on stderr; with EVERLONG_LOG_LEVEL=DEBUG its traceback first."""
    from infra.errors import SettingsError
    from infra.settings import load_settings

    try:
        debug = load_settings().log_level == "DEBUG"
    except SettingsError:
        debug = False
    if debug:
        say("".join(traceback.format_exception(error)).rstrip())
    sentence = str(error).strip() or "failed"
    known = isinstance(error, (EverlongError, OSError, ValueError))
    say(f"everlong: {sentence if known else f'{type(error).__name__}: {sentence}'}")
    if not known and not debug:
        say("EVERLONG_LOG_LEVEL=DEBUG shows where it happened")

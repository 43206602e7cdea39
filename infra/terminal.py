"""Output of commands: JSON or tables on stdout, progress and errors on stderr.

Ids, titles, searches and records are untrusted text. Before it reaches a terminal or a log, it passes through `safe`; rich gets it
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

CHATTY = ("aiokafka", "faiss", "faust", "kafka", "mode", "stream.kafka.transport", "stream.kafka.app")  # Faust logs under Everlong's names
SLOW_STEP = "kafka.net.selector", "blocking the event loop"  # kafka-python's note that the machine was busy for 0.1 s


# Control characters, surrogates, line separators, marks that change the direction of text, and invisible tags.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]")
_KEPT = "\n\t"


def safe(value: object, lines: bool = False) -> str:
    r"""Text that is safe to show in a terminal or a log: characters that control the terminal or hide text become escapes such as `\x1b`.

    Line ends and tabs become escapes too, unless `lines` is set.
    """
    return _UNSAFE.sub(lambda found: found[0] if lines and found[0] in _KEPT else found[0].encode("unicode_escape").decode(), str(value))


def plain(value: object) -> "Text":
    """Text for rich, without markup and without emoji codes; see `safe`."""
    return styled((value, ""))


def styled(*parts: tuple[object, str]) -> "Text":
    """As `plain`, from parts with a style each."""
    from rich.text import Text

    return Text.assemble(*((safe(value), style) for value, style in parts))


def console(width: int | None = None) -> "Console":
    """Stdout for people: strings are never markup, and a closed pipe (`| head`) ends the command quietly."""
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            _reader_gone(sys.stdout)

    return Quiet(width=width, markup=False, emoji=False, highlight=False)


def print_text(text: str) -> None:
    """Print lines on stdout."""
    _write(safe(text, lines=True), sys.stdout)


def print_json(value: Any) -> None:
    """Print one JSON document; msgspec structs become objects, bytes become base64."""
    import msgspec

    document = json.dumps(msgspec.to_builtins(value), ensure_ascii=False, indent=2)
    _write(_UNSAFE.sub(lambda found: found[0] if found[0] in _KEPT else json.dumps(found[0])[1:-1], document), sys.stdout)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table for people; plain text if stdout is not a terminal."""
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
    """Print a sentence for the person at the terminal, on stderr."""
    _write(safe(sentence, lines=True), sys.stderr)


def _write(text: str, stream: TextIO, end: str = "\n") -> None:
    try:
        print(text, file=stream, end=end, flush=True)
    except BrokenPipeError:
        _reader_gone(stream)


def _reader_gone(stream: TextIO) -> NoReturn:
    """End the command, since nothing reads its output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # otherwise Python reports an error when it flushes at exit
    raise SystemExit(0)


def when(ts_ms: int) -> str:
    """A time stamp for people, UTC."""
    try:
        return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(ts_ms)


def moment_ms(told: str, option: str) -> int:
    """Milliseconds since the epoch from an option: digits, or an ISO time, which is UTC without a zone."""
    if told.isdigit():
        return int(told)
    try:
        moment = datetime.fromisoformat(told)
    except ValueError:
        raise typer.BadParameter("write 2017-12-02, 2017-12-02T10:00 or milliseconds since the epoch", param_hint=option) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, updated by calling it with (done, total); if stderr is not a terminal, a line per tenth."""
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
    """Formats each record as one line, whatever its text contains; only a traceback follows, indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - overrides
        """The line."""
        record.message = safe(record.message.rstrip())
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - overrides
        """The traceback."""
        return indent(safe(super().formatException(ei), lines=True), "    ")


def show_logs(level: str) -> None:
    """Log to stderr, with few similar lines per minute; libraries log from WARNING on, or from INFO on at DEBUG.

    Libraries never log at DEBUG: the Kafka clients would log their configuration and the bytes they send, including the password.
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
    """Print the error as a sentence on stderr; with EVERLONG_LOG_LEVEL=DEBUG its traceback first."""
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

"""How commands speak: JSON or tables on stdout, progress and complaints on stderr."""

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, nothing else, on stdout.")]

CHATTY = ("aiokafka", "faust", "kafka", "mode", "stream.transport", "stream.app")  # Faust logs each service of its tree under our names too


def print_json(value: Any) -> None:
    """One JSON document; structs of msgspec as objects, bytes as base64."""
    import msgspec

    print(json.dumps(msgspec.to_builtins(value), ensure_ascii=False, indent=2))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table for people; plain text where stdout is no terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def say(sentence: str) -> None:
    """A sentence for the person at the terminal, on stderr."""
    print(sentence, file=sys.stderr, flush=True)


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
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=None)
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


def show_logs(level: str) -> None:
    """Log lines of this process go to stderr; those of libraries from WARNING on, from INFO on where DEBUG is asked for.

    Never their DEBUG: the Kafka clients then log their configuration and the bytes that they send, the password among them.
    """
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    least = logging.INFO if level == "DEBUG" else max(logging.WARNING, logging.getLevelName(level))
    for library in CHATTY:
        logging.getLogger(library).setLevel(least)


def complain(error: Exception) -> None:
    """The error as a sentence on stderr; with EVERLONG_LOG_LEVEL=DEBUG its traceback first."""
    from infra.settings import SettingsError, load_settings

    try:
        debug = load_settings().log_level == "DEBUG"
    except SettingsError:
        debug = False
    if debug:
        traceback.print_exception(error)
    sentence = str(error).strip() or "failed"
    ours = type(error).__module__.partition(".")[0] in ("infra", "stream", "models", "features")
    known = ours or isinstance(error, (OSError, ValueError))
    say(f"everlong: {sentence if known else f'{type(error).__name__}: {sentence}'}")
    if not known and not debug:
        say("EVERLONG_LOG_LEVEL=DEBUG shows where it happened")

"""The command `everlong` and its subcommands. Results go to stdout, everything else to stderr.

Command modules import only cheap modules at the top; torch, Faust, Feast and Kafka are imported by the commands that need
them, so that `--help` is fast.
"""

import logging
import sys
from importlib.metadata import entry_points, version
from io import TextIOWrapper
from typing import Annotated

import typer

from infra.cli import administration, checking, codes, dead_letters, machines, quarantine, reading, traffic, training
from infra.terminal import LineFormatter, complain, print_text, say

__all__ = ["main", "make_app"]

STUDIES = "everlong.studies"  # entry points: functions that add a command to the app
INTERRUPTED = 130
REFUSED = 3


def make_app() -> typer.Typer:
    """All commands."""
    app = typer.Typer(
        name="everlong",
        help="Keeps every click, search and order of a user's life and turns each new one into fresh candidates within a second.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_everlong)
    for group in (
        machines,
        checking,
        traffic,
        administration,
        training,
        reading,
        codes,
        dead_letters,
        quarantine,
    ):
        group.add_to(app)
    for study in entry_points(group=STUDIES):
        study.load()(app)
    return app


def main() -> None:
    """Run the command line of this process. An error is one sentence on stderr and exit code 1, a refused file 3, wrong usage 2."""
    logging.captureWarnings(True)  # warnings of libraries go to the log, if there is one
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks some characters must not cause a failure
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LineFormatter())  # warnings of commands without a log
    try:
        code = make_app()(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)
    except typer.TyperException as error:
        _show_usage(error)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 - every error ends in a sentence and an exit code
        complain(error)
        from features.errors import SourceError

        sys.exit(REFUSED if isinstance(error, SourceError) else 1)


def _show_usage(error: typer.TyperException) -> None:
    """Print a usage error. Typer itself would print control characters from the command line."""
    if sentence := error.format_message():  # empty if typer has printed the help instead
        context = getattr(error, "ctx", None)
        say(f"everlong: {sentence}" + (f" `{context.command_path} --help` explains it." if context is not None else ""))


def _print_version(wanted: bool) -> None:
    if wanted:
        print_text(f"everlong {version('everlong')}")
        raise typer.Exit


def _everlong(
    _: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Settings come from the environment (EVERLONG_...); `everlong settings` prints them."""

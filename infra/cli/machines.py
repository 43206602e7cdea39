"""Commands that run the demo, the whole system, or one role."""

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from infra.terminal import show_logs


class WorkerRole(StrEnum):
    """The roles of workers."""

    INGEST = "ingest"
    CATALOGUE = "catalogue"
    REFRESH = "refresh"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (demo, up, worker, api):
        app.command()(command)


def demo(
    seconds: Annotated[float, typer.Option(min=5, help="Seconds of live events.")] = 45.0,
    rate: Annotated[float, typer.Option(min=1, max=2000, help="Live events per second.")] = 60.0,
    users: Annotated[int, typer.Option(min=20, max=5000, help="Users of the simulated shop.")] = 300,
    keep: Annotated[Path | None, typer.Option(help="Keep data and logs in this new or empty folder instead of a temporary one.")] = None,
) -> None:
    """Watch a simulated shop's events become candidates, on a real broker and store; takes under three minutes.

    Starts an embedded broker and store, trains a small bundle, starts the workers, streams clicks, queries and orders
    through them, and checks that every event was counted. Stops everything at the end. Exit code 0 only if nothing failed.
    """
    from infra.demo.show import SHOP, DemoPlan, run_demo
    from infra.settings import load_settings

    raise typer.Exit(run_demo(load_settings(), DemoPlan(seconds, rate, SHOP._replace(users=users)), keep))


def up(
    shop: Annotated[bool, typer.Option(help="Stream the simulated shop's events continuously.")] = True,
    rate: Annotated[float, typer.Option(min=0.1, max=2000, help="Live events per second of the simulated shop.")] = 10.0,
    users: Annotated[int, typer.Option(min=20, max=100_000, help="Users of the simulated shop.")] = 300,
) -> None:
    """Run the whole system on this machine until Ctrl-C: broker, store, workers, API and page; data stays in the data directory."""
    from infra.local.up import run_up
    from infra.settings import load_settings

    raise typer.Exit(run_up(load_settings(), rate if shop else None, users))


def worker(role: Annotated[WorkerRole, typer.Argument(help="Which worker to run.")]) -> None:
    """Run one worker. Workers of a role share the partitions; more workers than partitions are idle."""
    from infra.local.running import connected
    from infra.settings import describe, load_settings

    settings = connected(load_settings())
    show_logs(settings.log_level)
    log = logging.getLogger("everlong")
    log.info("worker %s with these settings:", role)
    for line in describe(settings).splitlines():
        log.info("%s", line)
    from infra.local.private import private_files
    from infra.workers import run_worker

    with private_files():  # snapshots
        raise typer.Exit(run_worker(role.value, settings))


def api() -> None:
    """Serve the HTTP API and the page."""
    from infra.local.running import connected
    from infra.settings import load_settings

    settings = connected(load_settings())
    show_logs(settings.log_level)
    from infra.http.server import run

    raise typer.Exit(run(settings))

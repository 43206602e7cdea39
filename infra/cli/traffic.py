"""Commands that send events: the simulated shop, and files."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.files import MAX_REFUSED, Choices, Columns, EventsFile, Kind, MaxRefused, ProductColumns, ProductsFile, TimeUnit, open_file
from infra.terminal import AsJson, print_json, print_table, progress, say

if TYPE_CHECKING:
    from infra.settings import Settings
    from infra.shop import Shop
    from stream.kafka.connection import Connection

Users = Annotated[int, typer.Option(min=1, help="Users of the shop.")]
Items = Annotated[int, typer.Option(min=1, help="Items of the shop.")]
Categories = Annotated[int, typer.Option(min=1, help="Categories of the shop.")]
Seed = Annotated[int, typer.Option(help="Seed of the shop and all its events.")]
Days = Annotated[float, typer.Option(min=0, help="Days of history before the live events.")]
DAY_MS = 86_400_000


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (shop, replay):
        app.command()(command)


def shop(
    rate: Annotated[float, typer.Option(min=0.01, max=100_000, help="Live events per second.")] = 20.0,
    seconds: Annotated[float, typer.Option(min=0, help="Seconds of live events; 0: without end.")] = 60.0,
    users: Users = 300,
    items: Items = 2000,
    categories: Categories = 40,
    days: Days = 60.0,
    per_day: Annotated[float, typer.Option(min=0.001, help="Events per day of an average user.")] = 2.0,
    seed: Seed = 0,
    until: Annotated[int | None, typer.Option(help="End of the history, ms since the epoch. Default: now.")] = None,
    live_only: Annotated[bool, typer.Option("--live-only", help="Catalogue and history were sent before: send live events only.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Send nothing; print the distributions of the history.")] = False,
    compare: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="With --profile: those of this file too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Publish the catalogue, the history and then live events of a simulated shop."""
    from infra.clock import wall_ms
    from infra.shop import Shop

    simulated = Shop(seed, users, items, categories, per_day)
    end_ms = until or wall_ms()
    start_ms = end_ms - int(days * DAY_MS)
    if compare is not None and not profile:
        raise typer.BadParameter("--compare requires --profile")
    if profile:
        _print_profiles(simulated, start_ms, end_ms, compare, as_json)
        return
    from infra.local.running import connected
    from infra.settings import load_settings

    settings = connected(load_settings(), store=False)
    from infra.wiring import reached

    broker = reached(settings)
    sent = asyncio.run(_publish(broker, settings, simulated, (start_ms, end_ms), rate, seconds, live_only))
    if as_json:
        print_json(sent)
    else:
        say("sent: " + ", ".join(f"{count:,} {topic}" for topic, count in sorted(sent.items())))


async def _publish(
    broker: "Connection", settings: "Settings", simulated: "Shop", span: tuple[int, int], rate: float, seconds: float, live_only: bool
) -> dict[str, int]:
    from infra.clock import wall_ms
    from infra.local import system
    from infra.local.feed import Feed
    from infra.local.running import on_embedded_broker

    history = simulated.history(*span)
    async with Feed(broker, settings.topic_prefix, room=system.room(settings, on_embedded_broker(settings))) as feed:
        if not live_only:
            with progress("catalogue and history") as tell:
                await feed.send_all([*simulated.catalogue(span[0]), *history], tell)
        now_ms = wall_ms()
        live = simulated.live(now_ms, rate, history)
        await feed.send_live(live, None if seconds == 0 else now_ms + int(seconds * 1000))
        return dict(feed.sent)


def _print_profiles(simulated: "Shop", start_ms: int, end_ms: int, compare: Path | None, as_json: bool) -> None:
    from infra.shop import profile

    profiles = {"simulated shop": profile(simulated.history(start_ms, end_ms))}
    if compare is not None:
        profiles[compare.name] = profile(open_file(compare).events())
    if as_json:
        print_json(profiles)
        return
    names = dict.fromkeys(name for found in profiles.values() for name in found)
    rows = ([name, *(_number(found.get(name)) for found in profiles.values())] for name in names)
    print_table("distributions", ("", *profiles), rows)


def _number(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def replay(
    path: EventsFile,
    speed: Annotated[str, typer.Option(help="`max`, or a factor of the original speed.")] = "max",
    products: ProductsFile = None,
    columns: Columns = "",
    product_columns: ProductColumns = "",
    kind: Kind = None,
    time_unit: TimeUnit = None,
    max_refused: MaxRefused = MAX_REFUSED,
    as_json: AsJson = False,
) -> None:
    """Publish a file's items and events to their topics, oldest first.

    If no broker is configured or running, this starts an embedded broker and store and the workers, waits until every event
    is applied and every user has candidates, prints the accounts of all records, and stops everything.
    """
    from infra.errors import NothingRunningError
    from infra.local.running import connected
    from infra.settings import load_settings

    pace = _pace(speed)
    settings = load_settings()
    reading = open_file(path, products, Choices(columns, product_columns, kind, time_unit, max_refused))
    try:
        reached = connected(settings, store=False)
    except NothingRunningError:
        from infra.local.replaying import replay_alone

        raise typer.Exit(replay_alone(settings, reading, pace, as_json)) from None
    from infra import wiring
    from infra.local import system
    from infra.local.replaying import publish_file
    from infra.local.running import on_embedded_broker

    room = system.room(reached, on_embedded_broker(reached))
    sent = asyncio.run(publish_file(wiring.reached(reached), reached.topic_prefix, reading, pace, room))
    refused = reading.refusals.total
    if as_json:
        print_json({"sent": sent, "refused_rows": refused})
    else:
        say(
            "sent: " + ", ".join(f"{count:,} {topic}" for topic, count in sorted(sent.items())) + f"; refused rows of the file: {refused:,}"
        )


def _pace(speed: str) -> float | None:
    if speed == "max":
        return None
    try:
        pace = float(speed)
    except ValueError:
        pace = 0.0
    if not 0 < pace < float("inf"):
        raise typer.BadParameter("write max or a number above 0", param_hint="--speed")
    return pace

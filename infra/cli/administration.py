"""Commands for operators: topics, Feast registry, settings."""

from typing import Annotated

import typer

from infra.terminal import AsJson, print_json, print_table, print_text, say

DIFFERENT = 3


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(topics)
    app.command()(apply)
    app.command("settings")(show_settings)


def topics(
    check: Annotated[bool, typer.Option("--check", help="Create nothing; exit with 3 if a topic is missing or unsuitable.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Correct unsuitable settings that can be changed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create missing topics on the broker, and show the settings of every topic.

    For each unsuitable setting (retention, compaction, replicas, partitions), a line on stderr names it and its remedy.
    """
    from infra.local.running import connected
    from infra.settings import load_settings

    if check and repair:
        raise typer.BadParameter("--check changes nothing: leave out --repair")
    settings = connected(load_settings(), store=False)
    from infra.local.system import make_topics
    from infra.local.topics import COLUMNS, kept, repaired
    from infra.wiring import connection

    if not check:
        make_topics(settings)
    found = kept(connection(settings), settings)
    if repair and repaired(connection(settings), found):
        found = kept(connection(settings), settings)
    if as_json:
        print_json([topic.described for topic in found])
    else:
        print_table("topics", COLUMNS, (topic.cells for topic in found))
    for line in (line for topic in found for line in topic.complaints):
        say(line)
    if check and any(topic.complaints for topic in found):
        raise typer.Exit(DIFFERENT)


def apply(as_json: AsJson = False) -> None:
    """Write the feature definitions to Feast's registry in the data directory."""
    from infra.local.running import connected
    from infra.settings import load_settings

    settings = connected(load_settings(), kafka=False)
    from infra.local.private import private_files
    from infra.local.system import apply_features

    with private_files():  # Feast clients execute the functions in the registry, so other users must not write to it
        registry, views = apply_features(settings)
    if as_json:
        print_json({"registry": str(registry), "views": views})
    else:
        say(f"{len(views)} views are in {registry}: {', '.join(views)}")


def show_settings(
    as_json: AsJson = False, page: Annotated[bool, typer.Option("--page", help="Print docs/settings.md instead.")] = False
) -> None:
    """Print every setting and its value, secrets masked."""
    from infra.settings import describe, load_settings
    from infra.settings_page import settings_page

    if page:
        print_text(settings_page().rstrip())
        return
    lines = describe(load_settings())
    if as_json:
        print_json(dict(line.split("=", 1) for line in lines.splitlines()))
    else:
        print_text(lines)

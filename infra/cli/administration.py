"""Commands for whoever runs Everlong: topics, Feast registry, settings."""

from typing import Annotated

import typer

from infra.terminal import AsJson, print_json, print_table, print_text, say


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(topics)
    app.command()(apply)
    app.command("settings")(show_settings)


def topics(as_json: AsJson = False) -> None:
    """Make the topics that are missing on the broker, and list them all."""
    from infra.local.running import connected
    from infra.settings import load_settings

    settings = connected(load_settings(), store=False)
    from infra.local.system import make_topics
    from stream.topics import ALL, prefixed

    make_topics(settings)
    listed = [
        {
            "name": prefixed(settings.topic_prefix, topic),
            "key": topic.key,
            "partitions": topic.partitions or settings.partitions,
            "compacted": topic.compacted,
            "retention_ms": topic.retention_ms,
        }
        for topic in ALL
    ]
    if as_json:
        print_json(listed)
    else:
        print_table("topics", tuple(listed[0]), ([*topic.values()] for topic in listed))


def apply(as_json: AsJson = False) -> None:
    """Write the feature definitions into Feast's registry, in the data directory."""
    from infra.local.running import connected
    from infra.settings import load_settings

    settings = connected(load_settings(), kafka=False)
    from infra.local.private import private_files
    from infra.local.system import apply_features

    with private_files():  # Feast's clients run the functions in the registry: nobody else may write there
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

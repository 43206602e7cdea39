"""Commands that show a user's features and candidates."""

from typing import TYPE_CHECKING, Annotated

import typer

from infra.terminal import AsJson, print_json, print_table, say, when

if TYPE_CHECKING:
    from collections.abc import Sequence

    from features.outcomes import Candidate
    from features.store import OnlineStore
    from features.store.reader import Event
    from infra.settings import Settings

User = Annotated[str, typer.Argument(help="User id; one that begins with - must follow `--`.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (features, candidates):
        app.command()(command)


def features(
    user: User,
    category: Annotated[str | None, typer.Option("--category", "-c", help="Show the lifelong sequence of this category too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a user's features: newest events, queries, categories, and with --category all kept events of that category."""
    from features.store.reader import FeatureReader

    reader = FeatureReader(_store()[1])
    found = reader.user(user, category)
    if as_json:
        print_json(found)
        return
    if not found.recent and not found.queries:
        say(f"no events are known of user {user}")
        return
    print_table(f"{user}: newest events", EVENT_COLUMNS, map(_cells, found.recent))
    print_table(f"{user}: queries", ("time", "text"), ((when(query.ts), query.text) for query in found.queries))
    touched = ((seen.category_id, seen.count, when(seen.last_ts)) for seen in found.categories)
    print_table(f"{user}: categories", ("category", "events", "newest"), touched)
    if category is not None:
        kept = reader.user_category(user, category)
        print_table(f"{user} in {category}: {kept.count} events, {len(kept.sequence)} kept", EVENT_COLUMNS, map(_cells, kept.sequence))
        columns = ("from", "days", "events", "clicks", "carts", "favourites", "orders")
        rows = ((when(f.start_ts), f.width_ms // 86_400_000, f.count, f.clicks, f.carts, f.favourites, f.orders) for f in kept.folded)
        print_table(f"{user} in {category}: older events, folded", columns, rows)


EVENT_COLUMNS = ("time", "kind", "item", "category", "query")


def _cells(event: "Event") -> tuple[str, ...]:
    return when(event.ts), event.kind, event.item_id, event.category_id, event.query or ""


def candidates(
    user: User,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Number of candidates.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Print a user's newest candidate set: item, score, category and how each was found.

    Scores are comparable only among candidates of the same path.
    """
    settings, store = _store()
    from infra.http.answers import Answers

    def popular(most: int) -> "Sequence[Candidate]":
        from infra.http.popularity import Popularity  # imports torch, which only users without candidates need

        return Popularity(settings.bundle_path).best(most)

    answer = Answers(store, popular).candidates(user, k, titles=True)
    if as_json:
        print_json(answer)
        return
    title = f"{user}: level {answer['level']}, answers the events up to {when(answer['event_ts'])}, bundle {answer['generation']}"
    if not answer["published_ts"]:
        title = f"{user}: popular items"
        say(f"user {user} has no candidates yet: these are the popular items that the API returns instead")
    rows = (
        (n, one["item_id"], one["title"], one["category_id"], one["path"], f"{one['score']:.4f}")
        for n, one in enumerate(answer["candidates"], 1)
    )
    print_table(title, ("", "item", "title", "category", "path", "score in path"), rows)


def _store() -> "tuple[Settings, OnlineStore]":
    from infra.local.running import connected
    from infra.settings import load_settings

    settings = connected(load_settings(), kafka=False)
    from infra.wiring import open_online_store

    return settings, open_online_store(settings, create=False)

"""Commands that show what the online store holds of a user."""

from typing import TYPE_CHECKING, Annotated

import typer

from infra.terminal import AsJson, print_json, print_table, say, when

if TYPE_CHECKING:
    from features.reading import Event, FeatureReader

User = Annotated[str, typer.Argument(help="User id.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (features, candidates):
        app.command()(command)


def features(
    user: User,
    category: Annotated[str | None, typer.Option("--category", "-c", help="Show the lifelong sequence of this category too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what is kept of a user: newest events, queries, categories, and with --category all kept events of that category."""
    reader = _reader()
    found = reader.user(user, category)
    if as_json:
        print_json(found)
        return
    if not found.recent and not found.queries:
        say(f"nothing is known of user {user}")
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
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Print a user's newest candidate set: item, score, category and how each was found."""
    reader = _reader()
    row = reader.candidates(user)
    best = row.candidates[:k] if row is not None else []
    items = reader.item(candidate.item for candidate in best) if best else []
    listed = [
        {"item_id": c.item, "score": c.score, "category_id": c.category, "path": c.path, "title": item.title if item is not None else ""}
        for c, item in zip(best, items, strict=True)
    ]
    if as_json:
        head = {name: getattr(row, name, None) for name in ("level", "generation", "event_ts", "published_ts")}
        print_json({"user": user, **head, "candidates": listed})
        return
    if row is None:
        say(f"there are no candidates of user {user}")
        return
    title = f"{user}: level {row.level}, answers the events up to {when(row.event_ts)}, bundle {row.generation}"
    rows = ((n, c["item_id"], c["title"], c["category_id"], f"{c['score']:.4f}", c["path"]) for n, c in enumerate(listed, 1))
    print_table(title, ("", "item", "title", "category", "score", "path"), rows)


def _reader() -> "FeatureReader":
    from infra.local.running import connected
    from infra.settings import load_settings

    settings = connected(load_settings(), kafka=False)
    from features.reading import FeatureReader
    from infra.wiring import open_online_store

    return FeatureReader(open_online_store(settings))

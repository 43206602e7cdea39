"""Commands for the unreadable rows of the online store that workers quarantined."""

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from infra.terminal import AsJson, print_json, print_table, say, when

if TYPE_CHECKING:
    from features.quarantine import Quarantined
    from features.store import OnlineStore

Id = Annotated[str, typer.Argument(help="Id of the row, as `everlong quarantine list` shows it.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module, as a group."""
    group = typer.Typer(no_args_is_help=True, help="Unreadable rows of the online store: why, and whether they were rebuilt from the log.")
    group.command("list")(list_rows)
    group.command("show")(show)
    group.command("clear")(clear)
    app.add_typer(group, name="quarantine")


def list_rows(as_json: AsJson = False) -> None:
    """List the quarantined rows, newest first."""
    with closing(_store()) as store:
        rows = store.quarantined()[::-1]
    if as_json:
        print_json({"total": len(rows), "rows": [_described(row) for row in rows]})
        return
    columns = ("id", "found", "view", "entities", "rebuilt", "bytes", "reason")
    cells = ((row.id, when(row.at_ms), row.view, " ".join(row.entities), row.rebuilt, len(row.packed), row.reason) for row in rows)
    print_table(f"{len(rows)} unreadable rows", columns, cells)


def show(id_: Id, as_json: AsJson = False) -> None:
    """Show one row with its bytes (base64 in JSON)."""
    with closing(_store()) as store:
        row = next((row for row in store.quarantined() if row.id == id_), None)
    if row is None:
        raise LookupError(f"no row {id_} is in quarantine; `everlong quarantine list` shows the quarantined rows")
    if as_json:
        print_json(_described(row) | {"packed": row.packed})
        return
    print_table(f"unreadable row {id_}", ("", ""), [*_described(row).items(), ("packed", repr(row.packed))])


def clear(as_json: AsJson = False) -> None:
    """Delete all quarantined rows."""
    with closing(_store()) as store:
        ids = [row.id for row in store.quarantined()]
        store.release(ids)
    if as_json:
        print_json({"cleared": len(ids)})
        return
    say(f"{len(ids)} rows cleared")


def _described(row: "Quarantined") -> dict[str, object]:
    return {
        "id": row.id,
        "found_ms": row.at_ms,
        "view": row.view,
        "entities": list(row.entities),
        "reason": row.reason,
        "rebuilt": row.rebuilt,
        "log_position": list(row.log_position),
        "ts_ms": row.ts_ms,
        "bytes": len(row.packed),
    }


def _store() -> "OnlineStore":
    from infra.local.running import connected
    from infra.settings import load_settings
    from infra.wiring import open_online_store

    return open_online_store(connected(load_settings(), kafka=False))

"""`everlong codes`: the codebook in use, its drift, refresh and rollback."""

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.terminal import AsJson, print_json, print_table, print_text, progress, say

if TYPE_CHECKING:
    from stream.codes.codebook_registry import CodebookRegistry
    from stream.codes.codes_client import CodesClient
    from stream.kafka.messages import CodesAnswer, CodesRequest

EXIT = {"done": 0, "refused": 3, "failed": 4}
NO_ANSWER = 5


class RefreshMode(StrEnum):
    """What a refresh does."""

    AUTO = "auto"
    ENCODE = "encode"
    WARM = "warm"
    COLD = "cold"


Wait = Annotated[
    float, typer.Option("--wait", min=1, help="Seconds to wait for a catalogue worker's first answer and for each progress report.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module, as a group."""
    group = typer.Typer(no_args_is_help=True, help="Item codes: codebooks, drift, refresh and rollback.")
    group.command("status")(status)
    group.command("refresh")(refresh)
    group.command("rollback")(rollback)
    app.add_typer(group, name="codes")


def status(as_json: AsJson = False) -> None:
    """Show the codebooks of each bundle, which one is in use, its drift and what the policy calls for."""
    with _client() as client:
        found = described(client.registry, int(time.time() * 1000))
    if as_json:
        print_json(found)
        return
    if not found["bundles"]:
        say("no catalogue worker has measured codes yet; each bundle serves its own")
    for bundle in found["bundles"]:
        _print(bundle)


def refresh(
    how: Annotated[
        RefreshMode, typer.Option(help="`auto`: what the drift calls for; otherwise this action, whatever the drift.")
    ] = RefreshMode.AUTO,
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """Refresh item codes: train or update the codebook, publish every changed code, then activate the new codebook.

    Exit codes: 0 done, or nothing to do; 3 refused; 4 failed, the codes in use stay; 5 no catalogue worker answered in time.
    """
    _ask("refresh", how.value, "", wait, as_json)


def rollback(
    to: Annotated[str, typer.Option(help="The codebook to return to. Default: the previous one.")] = "",
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """Return to the previous codebook. No automatic refresh follows until you request one. Exit codes as for `refresh`."""
    _ask("rollback", "auto", to, wait, as_json)


def described(registry: "CodebookRegistry", now_ms: int) -> dict[str, list[dict[str, object]]]:
    """The codebooks and the drift of each bundle, as `everlong codes status` shows them."""
    names = {*registry.currents, *registry.drifts, *(g.bundle for g in (found.record for found in registry.announced.values()))}
    newest = sorted(names, key=lambda name: -max([g.started_ms for g in registry.of(name)], default=0))
    return {"bundles": [_described(registry, name, now_ms) for name in newest]}


def _described(registry: "CodebookRegistry", bundle: str, now_ms: int) -> dict[str, object]:
    current, drift = registry.currents.get(bundle), registry.drifts.get(bundle)
    own = next((said.own for said in (drift, *registry.of(bundle)) if said is not None), "")
    in_use = registry.current(bundle, own)
    listed = [
        {
            "codebook": g.codebook,
            "state": "current" if g.codebook == in_use else "complete" if g.ends is not None else "unfinished",
            "how": g.how,
            "parent": g.parent,
            "items": g.items,
            "changed": g.changed,
            "age_s": max(0, now_ms - g.started_ms) // 1000,
        }
        for g in registry.of(bundle)
    ]
    if own and own not in registry.announced:
        listed.insert(0, {"codebook": own, "state": "current" if own == in_use else "complete", "how": "bundle"})
    return {
        "bundle": bundle,
        "current": in_use,
        "previous": registry.previous(bundle, own),
        "since_s": max(0, now_ms - current.since_ms) // 1000 if current is not None else None,
        "why": current.why if current is not None else "bundle",
        "codebooks": listed,
        "drift": None
        if drift is None
        else {
            "codebook": drift.codebook,
            "items": drift.items,
            "age_s": max(0, now_ms - drift.measured_ms) // 1000,
            "figures": drift.figures,
            "action": drift.action,
            "reason": drift.reason,
            "automatic": drift.automatic,
        },
    }


def _print(bundle: dict[str, Any]) -> None:
    columns = ("codebook", "state", "how", "parent", "items", "changed", "age")
    rows = (
        (g["codebook"], g["state"], g["how"], g.get("parent", ""), g.get("items", ""), g.get("changed", ""), _age(g.get("age_s")))
        for g in bundle["codebooks"]
    )
    print_table(f"codes of bundle {bundle['bundle']}: {bundle['current']} is in use ({bundle['why']})", columns, rows)
    if (drift := bundle["drift"]) is not None:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in drift["figures"].items())
        print_text(f"drift of {drift['codebook']}, measured {_age(drift['age_s'])} ago over {drift['items']:,} items: {shown}")
        print_text(f"policy: {drift['action']} ({drift['reason']}); automatic refreshes: {'yes' if drift['automatic'] else 'no'}")


def _age(seconds: object) -> str:
    return "" if not isinstance(seconds, int | float) else f"{seconds:.0f} s" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _ask(what: str, how: str, to: str, wait_s: float, as_json: bool) -> None:
    from stream.errors import NoAnswerError

    with _client() as client, progress("codes") as tell:
        request = client.request(what, how, to, int(time.time() * 1000))
        try:
            for answer in client.answers(request, wait_s):
                if answer.state == "working":
                    tell(answer.done, answer.total)
        except NoAnswerError as error:
            if as_json:
                print_json({"id": request.id, "state": "no_answer", "detail": str(error)})
            say(f"everlong: {error}")
            raise typer.Exit(NO_ANSWER) from None
    _tell(request, answer, as_json)
    if answer.state != "done":
        raise typer.Exit(EXIT[answer.state])


def _tell(request: "CodesRequest", answer: "CodesAnswer", as_json: bool) -> None:
    if as_json:
        print_json(answer)
    elif answer.state == "done":
        say(f"{request.what}: {answer.detail}" + (f"; codebook {answer.codebook}" if answer.codebook else ""))
    else:
        say(f"everlong: the {request.what} was {answer.state}: {answer.detail}")


def _client() -> "CodesClient":
    from infra.local.running import connected
    from infra.settings import load_settings

    settings = connected(load_settings(), store=False)
    from infra.wiring import reached
    from stream.codes.codes_client import CodesClient
    from stream.kafka.topics import CODEBOOKS, prefixed

    return CodesClient(reached(settings), prefixed(settings.topic_prefix, CODEBOOKS))

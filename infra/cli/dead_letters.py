"""`everlong dlq`: refused events and their reasons."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from infra.terminal import AsJson, print_json, print_table, say, when

if TYPE_CHECKING:
    from stream.kafka.connection import Connection
    from stream.pipelines.dead_letters import FoundLetter, LetterFilter

Topic = Annotated[str | None, typer.Option("--topic", help="Only those of this topic.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Only those refused for this reason.")]
Since = Annotated[float | None, typer.Option("--since", min=0, help="Only those of the last N minutes.")]
AtPlace = Annotated[str, typer.Argument(metavar="PARTITION:OFFSET", help="Its position, as shown by `everlong dlq list`.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module, as a group."""
    group = typer.Typer(no_args_is_help=True, help="Dead letters: events that were refused, their reasons and their original bytes.")
    group.command("list")(list_letters)
    group.command("show")(show)
    group.command("replay")(replay)
    app.add_typer(group, name="dlq")


def list_letters(
    topic: Topic = None,
    reason: Reason = None,
    since: Since = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number, newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first."""
    from stream.pipelines.dead_letters import read

    connection, name, prefix = _topic()
    letters = sorted(read(connection, name, _wanted(prefix, topic, reason, since)), key=_age, reverse=True)
    shown = letters[:limit]
    if as_json:
        print_json({"total": len(letters), "dead_letters": [_described(found) for found in shown]})
        return
    columns = ("place", "written", "source", "reason", "detail")
    rows = ((f.place, when(f.written_ms), _source(f), f.letter.reason, f.letter.detail) for f in shown)
    print_table(f"{len(shown)} of {len(letters)} dead letters", columns, rows)


def show(place: AtPlace, as_json: AsJson = False) -> None:
    """Show one dead letter with its original bytes."""
    from stream.pipelines.dead_letters import LetterPlace, find

    connection, name, _ = _topic()
    found = find(connection, name, LetterPlace.parse(place))
    if as_json:
        print_json(_described(found) | {"key": found.letter.key, "value": found.letter.value})
        return
    rows = [(key, value) for key, value in _described(found).items()]
    print_table(f"dead letter {place}", ("", ""), [*rows, ("key", found.letter.key), ("value", found.letter.value)])


def replay(
    place: Annotated[
        str | None, typer.Argument(metavar="[PARTITION:OFFSET]", help="One dead letter. Default: those that the options select.")
    ] = None,
    topic: Topic = None,
    reason: Reason = None,
    since: Since = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters again to their topics. Each is applied once, however often it is sent.

    Only the beginning of an oversized record is kept, so it cannot be sent: naming one is an error, otherwise it is skipped.
    """
    from stream.pipelines import dead_letters

    if place is None and not (every or topic or reason or since):
        raise typer.BadParameter("name a PARTITION:OFFSET, select with --topic, --reason or --since, or give --all")
    connection, name, prefix = _topic()
    if place is not None:
        chosen, cut = [dead_letters.find(connection, name, dead_letters.LetterPlace.parse(place))], []
    else:
        found = list(dead_letters.read(connection, name, _wanted(prefix, topic, reason, since)))
        chosen, cut = [one for one in found if not one.letter.cut_bytes], [str(one.place) for one in found if one.letter.cut_bytes]
    sent = dead_letters.replay(connection, [one.letter for one in chosen], time.time_ns() // 1_000_000)
    if as_json:
        print_json({"sent": sent, "left_out": cut})
        return
    say(f"{sent} dead letters sent again")
    if cut:
        say(f"skipped, because only the beginning of their records is kept: {', '.join(cut)}")


def _topic() -> "tuple[Connection, str, str]":
    """The connection, the broker's name of the topic of dead letters, and the prefix of topics."""
    from infra.local.running import connected
    from infra.settings import load_settings

    settings = connected(load_settings(), store=False)
    from infra.wiring import reached
    from stream.kafka.topics import DEAD_LETTERS, prefixed

    return reached(settings), prefixed(settings.topic_prefix, DEAD_LETTERS), settings.topic_prefix


def _wanted(prefix: str, topic: str | None, reason: str | None, since: float | None) -> "LetterFilter":
    from stream.pipelines.dead_letters import LetterFilter

    since_ms = int(time.time() * 1000 - since * 60_000) if since is not None else 0
    return LetterFilter(None if topic is None else prefix + topic, reason, since_ms)


def _described(found: "FoundLetter") -> dict[str, object]:
    letter = found.letter
    return {
        "place": str(found.place),
        "written_ms": found.written_ms,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.reason,
        "detail": letter.detail,
        "ts": letter.ts,
        "bytes": len(letter.value) if letter.value is not None else None,
        "cut_bytes": letter.cut_bytes,
    }


def _source(found: "FoundLetter") -> str:
    return f"{found.letter.topic} {found.letter.partition}:{found.letter.offset}"


def _age(found: "FoundLetter") -> tuple[int, str]:
    return found.written_ms, str(found.place)

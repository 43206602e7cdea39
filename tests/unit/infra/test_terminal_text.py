"""Other people's text on a terminal and in a log: shown as it is, never obeyed."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from features.codec import pack
from features.events import Click, Query
from features.history import offline_rows
from features.outcomes import Candidate, CandidatesRow, ItemRow
from features.store import Key, LogPosition, Stored
from features.store.sqlite import SqliteStore
from infra.cli import make_app
from infra.demo.table import LiveTable, Picture, Shown
from infra.terminal import LineFormatter, console, print_json, print_table, safe, say

HOSTILE = (
    "[/b]",
    "[red]u[/red]",
    ":heart:",
    "[link=https://evil.example]x[/link]",
    "a\x1b[2Jb",
    "a\nb",
    "\x9b31mx",
    "\u202eevil",
    "\r\x08",
    "\udc80",
)
STEERS = [chr(n) for n in (*range(32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x2028, 0x2029)]


def steering(shown: str, allowed: str = "\n\t") -> set[str]:
    return {letter for letter in STEERS if letter in shown and letter not in allowed}


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store in which everything is called something hostile."""
    path = tmp_path / "rows.db"
    monkeypatch.setenv("EVERLONG_STORE_URL", f"sqlite:///{path}")
    monkeypatch.setenv("EVERLONG_DATA_DIR", str(tmp_path))
    store = SqliteStore(path)
    for user in HOSTILE[:-1]:
        events = [
            Query(event_id="q", user_id=user, query_id="q", text=f"search {user}", ts=1_760_000_000_000),
            Click(event_id="c", user_id=user, item_id=user, category_id=user, ts=1_760_000_001_000),
        ]
        users, categories = offline_rows(events)
        found = [(Key("user", (user,)), users[user]), *((Key("user_category", key), row) for key, row in categories.items())]
        found += [(Key("item", (user,)), ItemRow(category=user, title=f"title {user}", ts=1))]
        candidates = CandidatesRow(
            candidates=[Candidate(user, 0.5, user, "short")], level="full", generation=user, event_ts=1, published_ts=2
        )
        found += [(Key("user_candidates", (user,)), candidates)]
        store.write([(key, Stored(pack(row), LogPosition(), 1)) for key, row in found])
    store.close()
    return path


@pytest.mark.fault(
    "An id, title, category or search with markup, an emoji code, an escape sequence or a bidirectional control",
    "Tables, titles, JSON and messages show it literally, with control characters escaped",
)
@pytest.mark.parametrize("user", HOSTILE[:-1])
def test_tables_and_json_show_hostile_text_as_it_is(rows: Path, user: str) -> None:
    runner = CliRunner()
    for arguments in (["features", "--category", user, "--", user], ["candidates", "--", user]):
        found = runner.invoke(make_app(), arguments)
        assert found.exit_code == 0, found.exception
        assert found.stdout.count(safe(user)) >= 4
        assert steering(found.output) == set()
        found = runner.invoke(make_app(), [arguments[0], "--json", "--", user])
        assert steering(found.stdout) == set()
        assert json.loads(found.stdout)["user"] == user


@given(st.text() | st.sampled_from(HOSTILE))
def test_nothing_that_steers_a_terminal_gets_through(text: str) -> None:
    assert steering(safe(text), "") == set()
    assert safe(safe(text)) == safe(text)
    safe(text).encode()
    assert {letter for letter in safe(text, lines=True) if letter in STEERS} <= {"\n", "\t"}


def test_plain_words_stay(capsys: pytest.CaptureFixture[str]) -> None:
    words = "Zażółć gęślą jaźń, 跑鞋, حذاء, नमस्ते, 👩\u200d👩\u200d👧, می\u200cخواهم, 50 % [sale] \\n"
    assert safe(words) == words
    print_json({"title": words, "bad": "\x9b\u202e\x7f\U000e0041"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"title": words, "bad": "\x9b\u202e\x7f\U000e0041"}
    assert words.split()[1] in out
    assert steering(out) == set()


def test_titles_columns_cells_and_sentences_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    for text in HOSTILE:
        print_table(text, (text, "b"), [(text, text.encode(errors="replace"))])
        say(f"nothing is known of {text}")
        captured = capsys.readouterr()
        assert captured.out.count(safe(text)) >= 3
        assert safe(text, lines=True) in captured.err
        assert steering(captured.out + captured.err) == set()


def test_the_live_table_shows_hostile_titles(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[red]x[/red] :heart: \x1b]0;owned\x07"
    shown = Shown(text, text, text, "category", new=True)
    picture = Picture(1, 2, 60.0, 60, 3, 12.0, 40.0, 99, [("full", 7)], 4, text, text, [shown], [shown])
    wide = console(400)
    wide._force_terminal = True
    with LiveTable(wide) as view:
        view.show(picture)
    out = capsys.readouterr().out
    assert out.count("[red]x[/red] :heart: \\x1b]0;owned\\x07") >= 4
    assert "\x1b]0" not in out
    assert "\x07" not in out


def test_an_id_with_a_dash_is_read_behind_two_dashes(rows: Path) -> None:
    found = CliRunner().invoke(make_app(), ["features", "--json", "--", "-1"])
    assert json.loads(found.stdout)["user"] == "-1"


@pytest.mark.fault(
    "A newline or an escape sequence in logged text",
    "It is escaped within one line: no log line can be forged, and no terminal can be controlled",
)
def test_a_log_line_is_one_line() -> None:
    formatter = LineFormatter("%(levelname)s %(name)s %(message)s")
    forged = "u1\n2026-01-01 00:00:00 INFO forged\x1b[2J"
    try:
        raise ValueError(forged)
    except ValueError:
        record = logging.LogRecord("everlong", logging.ERROR, "", 0, "user %s", (forged,), sys.exc_info())
    first, *rest = formatter.format(record).splitlines()
    assert first == "ERROR everlong user u1\\n2026-01-01 00:00:00 INFO forged\\x1b[2J"
    assert rest
    assert all(line.startswith("    ") for line in rest)
    assert steering("\n".join(rest)) == set()


def everlong(*arguments: str, **more: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "infra.cli", *arguments], capture_output=True, timeout=120, check=False, **more)  # type: ignore[call-overload]


@pytest.mark.parametrize("arguments", [["x\x1b[31m[/b]"], ["features", "u", "--x\x1b[31m"], ["codes", "refresh", "--how", "[red]\x1b[31m"]])
def test_a_wrong_command_line_is_shown_and_not_obeyed(arguments: list[str]) -> None:
    done = everlong(*arguments)
    assert done.returncode == 2
    assert steering(done.stderr.decode()) == set()
    assert b"everlong: " in done.stderr
    assert b"--help" in done.stderr


@pytest.mark.fault("A pipe that closes while a command prints, as with `head`", "The command exits at once with code 0 and no traceback")
def test_a_reader_that_goes_away_ends_the_command_quietly(rows: Path) -> None:
    code = (
        "import os, sys\n"
        "read, write = os.pipe()\nos.close(read)\nos.dup2(write, 1)\n"
        "sys.argv = ['everlong', *sys.argv[1:]]\nfrom infra.cli import main\nmain()"
    )
    for arguments in (["features", "[/b]"], ["features", "[/b]", "--json"], ["settings"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, ""), arguments


def test_reading_makes_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLONG_STORE_URL", f"sqlite:///{tmp_path}/new/rows.db")
    for command in ("features", "candidates"):
        found = CliRunner().invoke(make_app(), [command, "nobody"])
        assert "there is no store at" in str(found.exception)
        assert "EVERLONG_STORE_URL" in str(found.exception)
    assert not (tmp_path / "new").exists()

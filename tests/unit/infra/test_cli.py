"""The command line: help, versions, JSON on stdout only, one-line errors, and the file that says what runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from features.outcomes import Candidate
from features.store.memory import MemoryStore
from features.store.sqlite import SqliteStore
from infra.cli import make_app
from infra.demo.table import LiveTable, Picture, Shown
from infra.errors import AlreadyRunningError, FolderNotEmptyError, NothingRunningError
from infra.http.answers import Answers
from infra.http.popularity import Popularity
from infra.local import running
from infra.local.accounts import Balance, Line
from infra.local.running import Running
from infra.scraping import MetricSample, Samples
from infra.settings import Settings, child_environment

COMMANDS = {
    *("demo", "up", "worker", "api", "shop", "replay", "topics", "apply", "train", "plot", "evaluate", "ablate", "relevance"),
    *("settings", "features", "candidates", "codes", "dlq", "quarantine", "check"),
}


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of this machine, and a data directory in which nothing runs."""
    for name in [name for name in os.environ if name.startswith("EVERLONG_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("EVERLONG_DATA_DIR", str(tmp_path / "data"))


def everlong(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "infra.cli", *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_every_command_explains_itself() -> None:
    runner = CliRunner()
    found = runner.invoke(make_app(), ["--help"])
    assert found.exit_code == 0
    assert all(name in found.output for name in COMMANDS)
    groups = [["dlq", name] for name in ("list", "show", "replay")] + [["codes", name] for name in ("status", "refresh", "rollback")]
    for command in [[name] for name in sorted(COMMANDS)] + groups:
        found = runner.invoke(make_app(), [*command, "--help"])
        assert found.exit_code == 0, command
        assert "Usage" in found.output


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom infra.cli import make_app\ntry:\n    make_app()(['features', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'faust', 'feast', 'faiss', 'kafka', 'aiokafka', 'pyarrow'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.strip() == "[]"


def test_version() -> None:
    found = CliRunner().invoke(make_app(), ["--version"])
    assert found.exit_code == 0
    assert found.output.startswith("everlong 0.")


@pytest.mark.parametrize(
    "arguments", [["features", "u1", "--json"], ["dlq", "list", "--json"], ["codes", "status"], ["worker", "ingest"], ["topics"]]
)
def test_nothing_running_is_one_sentence_with_the_remedy(arguments: list[str]) -> None:
    done = everlong(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "start `everlong up` or set EVERLONG_" in done.stderr


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLONG_LOG_LEVEL", "DEBUG")
    assert "Traceback" in everlong("candidates", "u1").stderr


def test_a_wrong_setting_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLONG_PARTITIONS", "many")
    done = everlong("features", "u1")
    assert done.returncode == 1
    assert "EVERLONG_PARTITIONS" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["worker", "cook"], ["replay", "no-such-file"], ["replay", __file__, "--speed", "fast"], ["dlq", "replay"], ["candidates"]],
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    found = CliRunner().invoke(make_app(), arguments)
    assert found.exit_code == 2


def test_settings_are_json_and_hide_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLONG_STORE_URL", "redis://me:secret@127.0.0.1:1/0")
    found = CliRunner().invoke(make_app(), ["settings", "--json"])
    assert "secret" not in found.output
    assert json.loads(found.stdout)["EVERLONG_PARTITIONS"] == "4"


def test_features_and_candidates_of_an_unknown_user_are_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLONG_STORE_URL", f"sqlite:///{tmp_path}/rows.db")
    SqliteStore(tmp_path / "rows.db").close()
    features = CliRunner().invoke(make_app(), ["features", "nobody", "--category", "c", "--json"])
    expected = {"user": "nobody", "recent": [], "queries": [], "categories": [], "category": "c", "sequence": [], "folded": []}
    assert json.loads(features.stdout) == expected
    shown = CliRunner().invoke(make_app(), ["features", "nobody"])
    assert (shown.stdout, shown.stderr) == ("", "no events are known of user nobody\n")


def test_an_unknown_user_gets_what_is_popular_as_from_the_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLONG_STORE_URL", f"sqlite:///{tmp_path}/rows.db")
    SqliteStore(tmp_path / "rows.db").close()
    found = [Candidate(f"i{n}", 9.0 - n, "hats", "popular") for n in range(5)]
    monkeypatch.setattr(Popularity, "best", lambda self, k: found[:k])
    answer = json.loads(CliRunner().invoke(make_app(), ["candidates", "nobody", "-k", "3", "--json"]).stdout)
    assert answer == Answers(MemoryStore(), lambda k: found[:k]).candidates("nobody", 3, titles=True)
    assert (answer["level"], [one["item_id"] for one in answer["candidates"]]) == ("popular", ["i0", "i1", "i2"])
    shown = CliRunner().invoke(make_app(), ["candidates", "nobody"])
    assert "popular items" in shown.stdout
    assert "user nobody has no candidates yet" in shown.stderr


def running_now(**changed: object) -> Running:
    about = {"pid": os.getpid(), "began": running.began(), "bootstrap": "127.0.0.1:1", "store_url": "redis://127.0.0.1:2/0"}
    return Running(**{**about, "epoch": 3, "bundle": "b", **changed})  # type: ignore[arg-type]


def test_a_running_up_is_found_until_it_is_gone(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    running.note(tmp_path, running_now())
    assert (tmp_path / running.FILE).stat().st_mode & 0o077 == 0
    found = running.connected(settings)
    assert (found.kafka_bootstrap, found.epoch, found.bundle) == ("127.0.0.1:1", 3, Path("b"))
    running.note(tmp_path, running_now(began=1))  # the number now belongs to another process
    with pytest.raises(NothingRunningError, match="nothing is running"):
        running.connected(settings)
    running.note(tmp_path, running_now())
    running.forget(tmp_path)
    assert running.find(tmp_path) is None


def test_a_process_that_ended_is_not_running() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    began = running._began(child.pid)
    assert began > 0
    assert running_now(pid=child.pid, began=began).alive
    assert not running_now(pid=child.pid, began=began - 60).alive
    child.kill()
    while running._began(child.pid):  # a zombie does not run
        pass
    assert not running_now(pid=child.pid, began=began).alive
    child.wait()
    assert not running_now(pid=child.pid, began=began).alive
    assert not running_now(pid=child.pid, began=0).alive  # an unknown start time


def test_a_data_directory_is_one_commands_alone_until_it_ends(tmp_path: Path) -> None:
    with running.owned(tmp_path), pytest.raises(AlreadyRunningError, match="EVERLONG_DATA_DIR"), running.owned(tmp_path):
        pass
    with running.owned(tmp_path):
        pass


def test_the_demo_keeps_nothing_in_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    found = CliRunner().invoke(make_app(), ["demo", "--keep", str(tmp_path)])
    assert isinstance(found.exception, FolderNotEmptyError)
    assert "is not empty: choose a new folder" in str(found.exception)


def test_named_parts_win_over_running_ones(tmp_path: Path) -> None:
    running.note(tmp_path, running_now())
    settings = Settings(data_dir=tmp_path, kafka_bootstrap="elsewhere:9092")
    found = running.connected(settings)
    assert (found.kafka_bootstrap, found.epoch) == ("elsewhere:9092", 0)
    assert running.connected(settings, store=False) is settings


def test_child_environment_names_settings() -> None:
    assert child_environment(kafka_bootstrap="h:1")["EVERLONG_KAFKA_BOOTSTRAP"] == "h:1"


def test_samples_add_up() -> None:
    values = (({"t": "a", "o": "x"}, 2), ({"t": "a", "o": "y"}, 3), ({"t": "b", "o": "x"}, 5))
    samples = Samples([MetricSample("e", labels, value) for labels, value in values])
    assert samples.total("e", t="a") == 5
    assert samples.by("o", "e", t="a") == {"x": 2, "y": 3}


def test_accounts_must_add_up() -> None:
    standing = Balance({"clicks": 10}, {"clicks": {"applied": 6, "duplicate": 1, "redelivered": 4}}, 2, Samples([]))
    assert (standing.taken, standing.lag) == (9, 1)
    assert not Line("clicks", 10, 6, 1, 2, 4).adds_up
    assert Line("clicks", 10, 7, 1, 2, 4).adds_up


def test_without_a_terminal_there_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Shown("i1", "A [bold] lamp", "lamps", "category")
    picture = Picture(1, 2, 60.0, 60, 3, 12.0, 40.0, 99, [("full", 7)], 4, "u1", "a click", [shown], [shown])
    with LiveTable(Console(width=200)) as view:
        view.show(picture)
        view.show(picture)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "\x1b" not in out
    assert "lag 3" in out
    with LiveTable(Console(width=200, force_terminal=True)) as view:
        view.show(picture)
    assert "A [bold] lamp (i1)" in capsys.readouterr().out

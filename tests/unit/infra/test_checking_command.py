"""`everlong check`, and what every command does with a file before it starts anything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from features.errors import SourceError
from infra.cli import make_app
from infra.files import open_file

HEAD = "user_id,event_type,product_id,timestamp,note\n"


def _written(folder: Path, bad: int = 0) -> Path:
    rows = [f"u{n % 9},view,{n % 7},{1_790_000_000 + n},x\n" for n in range(100)]
    rows += [f"u1,remove_from_cart,1,{1_790_000_000 + n},x\n" for n in range(bad)]
    (folder / "clicks.csv").write_text(HEAD + "".join(rows))
    (folder / "products.csv").write_text(
        "product_id,title,category,colour\n" + "".join(f"{n},thing {n},c{n % 2},red\n" for n in range(5, 12))
    )
    return folder / "clicks.csv"


def everlong(*arguments: object):
    return CliRunner().invoke(make_app(), [str(argument) for argument in arguments])


def test_check_prints_what_is_understood(tmp_path: Path) -> None:
    path = _written(tmp_path, bad=2)
    done = everlong("check", path, "--products", tmp_path / "products.csv")
    assert done.exit_code == 0, done.output
    for words in (
        "clicks.csv: comma-separated text", "102, 100 events", "user=user_id, item=product_id, time=timestamp, kind=event_type",
        "not used    note", "seconds; 2026-09-21 14:13:20 to 2026-09-21 14:14:59 UTC", "click 100",
        "users       9", "items       7 in 3 categories",
        "unknown kinds: remove_from_cart 2", "row 102: column event_type", "attributes  colour",
        "2 of 7 items of the events are described; 5 products",
    ):  # fmt: skip
        assert words in done.output, words
    told = json.loads(everlong("check", path, "--json").stdout)
    assert (told["rows"], told["events"], told["kinds"], told["refused"]["reasons"]) == (102, 100, {"click": 100}, {"unknown_kind": 2})
    assert told["refused_because"] is None


@pytest.mark.fault(
    "A file with more than 5 % refused rows", "Every command stops before it starts anything and prints the counts by reason"
)
def test_a_file_with_too_many_refused_rows_stops_every_command(tmp_path: Path) -> None:
    path = _written(tmp_path, bad=50)
    done = everlong("check", path)
    assert done.exit_code == 3
    assert "50 of 150 rows (33%) are refused, unknown_kind 50 (remove_from_cart 50)" in done.output
    for command in (
        ["train", "--data", path],
        ["evaluate", "--data", path],
        ["ablate", "--data", path],
        ["relevance", "--data", path],
        ["replay", path],
    ):
        refused = everlong(*command)
        assert isinstance(refused.exception, SourceError), (command, refused.output)
        assert "--max-refused 0.34" in str(refused.exception)
    assert everlong("check", path, "--max-refused", 0.5).exit_code == 0
    assert everlong("check", path, "--columns", "kind=note", "--max-refused", 1).exit_code == 3  # no event is left
    none = everlong("check", path, "--columns", "time=note")
    assert none.exit_code == 3
    assert "150 of 150 rows (100%) are refused" in none.output
    assert "--max-refused" not in none.output  # no event would be left
    assert everlong("check", path, "--kind", "click").exit_code == 0
    assert [everlong("check", path, *wrong).exit_code for wrong in (("--kind", "gaze"), ("--time-unit", "h"), ("--columns", "who=x"))] == [
        2,
        2,
        2,
    ]


def test_what_is_not_understood_is_said_as_json_too(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a,b\n1,2\n")
    done = everlong("check", tmp_path / "x", "--json")
    assert (done.exit_code, "no column for user" in json.loads(done.stdout)["refused_because"]) == (3, True)


def test_rules_of_time_are_those_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLONG_RETENTION_MS", "1000")
    with pytest.raises(SourceError, match=r"beyond_retention 100.*EVERLONG_RETENTION_MS"):
        open_file(_written(tmp_path))


@pytest.mark.fault(
    "A file that cannot be read, in any command",
    "The command exits at once with code 3 and one sentence, before it starts a broker, a store or a model",
)
def test_a_bad_file_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    program = """
import sys
from infra.cli import main
sys.argv[1:] = ["replay", sys.argv[1]]
try:
    main()
finally:
    assert "torch" not in sys.modules
"""
    environment = os.environ | {"EVERLONG_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.csv")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "no column for user, item, time" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_csv_and_its_products_train_a_bundle(tmp_path: Path) -> None:
    from models.bundle import load

    path = _written(tmp_path, bad=2)
    files = ("--data", path, "--products", tmp_path / "products.csv", "--out", tmp_path / "bundle")
    done = everlong("train", *files, "--epochs", 1, "--dim", 16, "--usual-shares", "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "unknown_kind 2 (remove_from_cart 2)" in done.stderr
    assert json.loads(done.stdout)["items"] == load(tmp_path / "bundle").manifest.items == 12

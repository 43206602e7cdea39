"""`everlong train` that is killed and started again; the log of its steps."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from infra.training.log import HEAD, TrainingLog, read_log
from models.bundle import load
from models.training.phase import TrainingProgress

SMALL = ("--users", "40", "--items", "120", "--categories", "6", "--days", "20", "--dim", "16", "--epochs", "16")
COMMAND = (sys.executable, "-m", "infra.cli", "train", *SMALL, "--until", "2026-01-31T12:00", "--json")
LIMIT_S = 240


def started(folder, name, *more):
    """A training of its own process, its files in a folder."""
    environ = os.environ | {"EVERLONG_DATA_DIR": str(folder / "data"), "OMP_NUM_THREADS": "1"}
    options = ("--out", str(folder / f"{name}.bundle"), "--log", str(folder / f"{name}.csv"), *more)
    return subprocess.Popen((*COMMAND, *options), env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process):
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_and_ends_with_the_same_weights_and_the_same_log(tmp_path):
    code, out, err = finished(started(tmp_path, "whole"))
    assert code == 0, err
    expected = json.loads(out)["generation"]
    kept = ("--checkpoints", str(tmp_path / "kept"), "--every", "0.2")
    broken = started(tmp_path, "resumed", *kept)
    ends = time.monotonic() + LIMIT_S
    while not any((tmp_path / "kept").glob("*.safetensors")) and time.monotonic() < ends:
        assert broken.poll() is None, broken.communicate()
        time.sleep(0.01)
    broken.send_signal(signal.SIGKILL)
    broken.communicate()
    assert not (tmp_path / "resumed.bundle").exists()
    steps = len(read_log(tmp_path / "resumed.csv"))
    code, out, err = finished(started(tmp_path, "resumed", *kept))
    assert code == 0, err
    assert json.loads(out)["generation"] == expected == load(tmp_path / "resumed.bundle").generation
    whole = read_log(tmp_path / "whole.csv")
    assert 0 < steps < len(whole)
    assert read_log(tmp_path / "resumed.csv") == whole
    code, _, err = finished(started(tmp_path, "resumed", *kept, "--seed", "1"))
    assert code != 0
    assert "another training" in err


def test_a_shop_that_ends_now_is_not_kept(tmp_path):
    command = (sys.executable, "-m", "infra.cli", "train", *SMALL, "--checkpoints", str(tmp_path / "kept"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 2
    assert "--until" in done.stderr


@pytest.mark.parametrize(("first", "left"), [(1, []), (3, [1, 2]), (5, [1, 2, 3, 4])])
def test_a_log_is_gone_on_with_from_the_step_that_is_told_first(tmp_path, first, left):
    path = tmp_path / "deep" / "log.csv"
    with TrainingLog(path) as log:
        log.tell(TrainingProgress("reading", 0, 1, 0.0))
        for step in range(1, 5):
            log.tell(TrainingProgress("training", step, 9, 1 / step, 0.25, 64))
    with path.open("a") as file:
        file.write("training,5")
    with TrainingLog(path) as log:
        log.tell(TrainingProgress("training", first, 9, 7.0, 0.25, 64))
    assert path.read_text().splitlines()[0] == ",".join(HEAD)
    assert [(int(row[1]), row[3]) for row in read_log(path)] == [*((step, f"{1 / step:.6g}") for step in left), (first, "7")]


def test_another_phase_comes_after_the_one_before(tmp_path):
    path = tmp_path / "log.csv"
    for phase in ("one", "two"):
        with TrainingLog(path) as log:
            log.tell(TrainingProgress(phase, 1, 1, 1.0, 0.1, 8))
    assert [row[0] for row in read_log(path)] == ["one", "two"]

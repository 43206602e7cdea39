"""The picture of a training shows the rows of its table."""

import os
import subprocess
import sys
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest

from infra.errors import NothingToPlotError
from infra.training.log import TrainingLog, read_log
from infra.training.plot import curves, figure, write_plot
from models.training.phase import TrainingProgress

SVG = "{http://www.w3.org/2000/svg}"


def written(path, phases, scale=1.0, steps=20):
    with TrainingLog(path) as log:
        for phase in phases:
            for step in range(1, steps + 1):
                log.tell(TrainingProgress(phase, step, steps, scale / step, 0.01 / step, 8))
    return path


def test_a_picture_has_a_panel_for_each_phase_and_a_curve_for_each_training(tmp_path):
    logs = [written(tmp_path / "one.csv", ("first", "a < b")), written(tmp_path / "two.csv", ("a < b",), scale=3.0)]
    drawn = figure({path.stem: curves(path) for path in logs})
    first, first_rates, second, second_rates = (drawn.axes[n] for n in (0, 2, 1, 3))
    assert [panel.get_title() for panel in (first, second)] == ["first", "a < b"]
    assert [len(panel.lines) for panel in (first, second, first_rates, second_rates)] == [1, 2, 1, 1]
    steps = np.arange(1, 21)
    for line, scale in zip(second.lines, (1.0, 3.0), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), steps)
        np.testing.assert_allclose(line.get_ydata(), scale / steps, rtol=1e-5)
    np.testing.assert_allclose(first_rates.lines[0].get_ydata(), 0.01 / steps, rtol=1e-5)
    assert [text.get_text() for text in second.get_legend().get_texts()] == ["one 0.05", "two 0.15", "learning rate"]
    assert second.lines[0].get_color() == first.lines[0].get_color() != second.lines[1].get_color()


def test_the_file_is_an_svg_with_its_words_as_text_and_equal_tables_give_equal_files(tmp_path):
    log = written(tmp_path / "one.csv", ("a < b",))
    one, two = (write_plot([log], tmp_path / "deep" / name) for name in ("one.svg", "two.svg"))
    assert one.read_bytes() == two.read_bytes()
    words = {"".join(text.itertext()).strip() for text in ElementTree.parse(one).getroot().iter(f"{SVG}text")}
    assert {"a < b", "step", "one 0.05", "learning rate"} <= words


def test_losses_that_are_not_finite_leave_a_gap(tmp_path):
    path = tmp_path / "log.csv"
    with TrainingLog(path) as log:
        for step, loss in enumerate((2.0, float("nan"), float("inf"), 1.0), 1):
            log.tell(TrainingProgress("training", step, 4, loss, 0.0, 8))
    panel = figure({"run": curves(path)}).axes[0]
    assert panel.get_ylim()[1] < 3
    assert write_plot([path], tmp_path / "loss.svg").exists()


def test_without_the_extra_a_training_ends_before_it_begins(tmp_path):
    lines = (
        "import importlib.util as util",
        "find = util.find_spec",
        "util.find_spec = lambda name, *more: None if name == 'matplotlib' else find(name, *more)",
    )
    (tmp_path / "sitecustomize.py").write_text("\n".join(lines))
    environ = os.environ | {"EVERLONG_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(tmp_path)}
    command = (sys.executable, "-m", "infra.cli", "train", "--plot", str(tmp_path / "loss.svg"))
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "pip install 'everlong[plot]'" in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("content", [b"", b"phase,step,steps,loss,learning_rate,examples\n", b"a,b,c,d,e,f\n", b"\xff\xfe\x00" * 9])
def test_what_is_no_table_of_steps_is_refused_by_name(tmp_path, content):
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(NothingToPlotError, match=r"log\.csv contains no training step"):
        write_plot([tmp_path / "log.csv"], tmp_path / "loss.svg")
    assert not (tmp_path / "loss.svg").exists()


@pytest.mark.slow
def test_the_command_draws_while_it_trains_and_from_a_table_that_is_there(tmp_path):
    def everlong(*words):
        environ = os.environ | {"EVERLONG_DATA_DIR": str(tmp_path / "data"), "OMP_NUM_THREADS": "1"}
        command = (sys.executable, "-m", "infra.cli", *words)
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)

    shop = ("--users", "20", "--items", "60", "--categories", "4", "--days", "10", "--dim", "16", "--epochs", "2")
    done = everlong("train", *shop, "--plot", str(tmp_path / "loss.svg"))
    assert done.returncode == 0, done.stderr
    rows = read_log(tmp_path / "loss.csv")
    picture = (tmp_path / "loss.svg").read_text()
    words = {"".join(text.itertext()).strip() for text in ElementTree.fromstring(picture).iter(f"{SVG}text")}
    steps = Counter(row[0] for row in rows)
    assert set(steps) == {"pretraining", "training"} <= words
    assert min(steps.values()) > 1
    done = everlong("plot", str(tmp_path / "loss.csv"), "--out", str(tmp_path / "loss-again" / "loss.svg"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "loss-again" / "loss.svg").read_text() == picture
    (tmp_path / "empty.csv").touch()
    done = everlong("plot", str(tmp_path / "empty.csv"), "--out", str(tmp_path / "none.svg"))
    assert done.returncode == 1
    assert done.stderr.startswith("everlong: ")

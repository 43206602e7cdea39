"""The picture of a training shows the rows of its table."""

import os
import subprocess
import sys
from collections import Counter
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import NothingToPlotError
from infra.training.log import TrainingLog, read_log
from infra.training.plot import COLOURS, GREY, POINTS, RIGHT, WIDTH, Axis, Curve, curves, svg, write_plot
from models.training.phase import TrainingProgress

SVG = "{http://www.w3.org/2000/svg}"
FEW = st.floats(-1e6, 1e6, width=32)


def written(path, phases, scale=1.0, steps=20):
    with TrainingLog(path) as log:
        for phase in phases:
            for step in range(1, steps + 1):
                log.tell(TrainingProgress(phase, step, steps, scale / step, 0.01 / step, 8))
    return path


def drawn(root, panel, colour):
    """The points of a panel's curve of that colour."""
    [line] = [line for line in root.findall(f"{SVG}g")[panel].findall(f"{SVG}polyline") if line.get("stroke") == colour]
    return [tuple(map(float, point.split(","))) for point in line.get("points").split()]


@given(values=st.lists(FEW, min_size=2, max_size=2, unique=True).map(sorted), share=st.floats(0, 1))
def test_an_axis_lays_values_out_evenly_and_its_ticks_are_round_and_inside(values, share):
    low, high = values
    axis = Axis(low, high, 300, 40)
    assert axis.at(low + share * (high - low)) == pytest.approx(300 - 260 * share, abs=1e-3)
    ticks, slack = axis.ticks(), 1e-6 * (high - low)
    assert 2 <= len(ticks) <= 7
    assert low - slack <= min(ticks) <= max(ticks) <= high + slack


def test_a_picture_has_a_panel_for_each_phase_and_a_curve_for_each_training(tmp_path):
    logs = [written(tmp_path / "one.csv", ("first", "a < b")), written(tmp_path / "two.csv", ("a < b",), scale=3.0)]
    root = ElementTree.parse(write_plot(logs, tmp_path / "deep" / "loss.svg")).getroot()
    assert [len(panel.findall(f"{SVG}polyline")) for panel in root.findall(f"{SVG}g")] == [2, 3]
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert "a < b: mean loss of the newest steps" in words
    assert {"one 0.05", "two 0.15", "learning rate, at most 0.01"} <= set(words)
    one, two = (drawn(root, 1, colour) for colour in COLOURS[:2])
    highest, lowest = two[0][1], one[-1][1]
    for n, step in enumerate(range(1, 21)):
        expected = [(scale / step - 0.05) / (3.0 - 0.05) for scale in (1.0, 3.0)]
        found = [(lowest - curve[n][1]) / (lowest - highest) for curve in (one, two)]
        assert found == pytest.approx(expected, abs=1e-4)
        assert one[n][0] == two[n][0] == pytest.approx(one[0][0] + (step - 1) * (one[-1][0] - one[0][0]) / 19, abs=0.02)
    assert len(drawn(root, 0, GREY)) == 20


@pytest.mark.parametrize("steps", [1, POINTS - 1, POINTS, POINTS + 1, 7 * POINTS + 3])
def test_a_long_training_is_thinned_and_ends_where_it_ended(steps):
    curve = Curve([*range(1, steps + 1)], [1 / step for step in range(1, steps + 1)], [0.1] * steps)
    points = drawn(ElementTree.fromstring(svg({"run": {"training": curve}})), 0, COLOURS[0])
    assert len(points) == -(-steps // -(-steps // POINTS))
    assert points[-1][0] == WIDTH - RIGHT


def test_losses_that_are_no_numbers_are_left_out_and_equal_ones_are_a_line(tmp_path):
    path = tmp_path / "log.csv"
    with TrainingLog(path) as log:
        for step, loss in enumerate((2.0, float("nan"), float("inf"), 2.0), 1):
            log.tell(TrainingProgress("training", step, 4, loss, 0.0, 8))
    points = drawn(ElementTree.fromstring(svg({"run": curves(path)})), 0, COLOURS[0])
    assert len(points) == 2
    assert points[0][1] == points[1][1]


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
    panels = [drawn(ElementTree.fromstring(picture), panel, COLOURS[0]) for panel in (0, 1)]
    steps = Counter(row[0] for row in rows)
    assert [len(points) for points in panels] == [steps["pretraining"], steps["training"]]
    assert min(steps.values()) > 1
    done = everlong("plot", str(tmp_path / "loss.csv"), "--out", str(tmp_path / "loss-again" / "loss.svg"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "loss-again" / "loss.svg").read_text() == picture
    (tmp_path / "empty.csv").touch()
    done = everlong("plot", str(tmp_path / "empty.csv"), "--out", str(tmp_path / "none.svg"))
    assert done.returncode == 1
    assert done.stderr.startswith("everlong: ")

"""Plots the loss of trainings with matplotlib, which the extra `plot` installs."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from infra.errors import NothingToPlotError, PlottingUnavailableError
from infra.training.log import Row, read_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, PANEL = 8.0, 3.2  # inches; the height is per panel
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # distinguishable by colour-blind people too (Okabe, Ito)
GREY = "#999999"


class Curve(NamedTuple):
    """A phase of one training: ascending steps, with mean loss and learning rate of each."""

    steps: list[int]
    losses: list[float]
    rates: list[float]


def require_plotting() -> None:
    """Raise PlottingUnavailableError if the extra `plot` is not installed."""
    if find_spec("matplotlib") is None:
        raise PlottingUnavailableError


def write_plot(logs: Sequence[Path], out: Path) -> Path:
    """Draw the tables of one or more trainings into an SVG file, replacing an existing one.

    Raises:
        NothingToPlotError: a file is not a table of steps, or has none.
        PlottingUnavailableError: the extra `plot` is not installed.
    """
    require_plotting()
    import matplotlib as mpl

    trainings = {path.stem: curves(path) for path in logs}
    out.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "everlong"}):  # text stays text; equal trainings give equal files
        figure(trainings).savefig(out, format="svg", metadata={"Date": None})
    return out


def curves(log: Path) -> dict[str, Curve]:
    """The phases of a training by name, in their order.

    Raises:
        NothingToPlotError: the file is not a table of steps, or has none.
    """
    found: dict[str, Curve] = {}
    try:
        for row in read_log(log):
            _add(found, row)
    except (ValueError, UnicodeDecodeError) as error:
        raise NothingToPlotError(log) from error
    if not found:
        raise NothingToPlotError(log)
    return found


def figure(trainings: Mapping[str, Mapping[str, Curve]]) -> "Figure":
    """One panel per phase with the loss of each training; the dashed line is the learning rate of the first training with that phase."""
    from matplotlib.figure import Figure

    phases = list(dict.fromkeys(phase for training in trainings.values() for phase in training))
    drawn = Figure(figsize=(WIDTH, PANEL * len(phases)), layout="constrained")
    panels = drawn.subplots(len(phases), squeeze=False)[:, 0]
    colours = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(trainings)}
    for panel, phase in zip(panels, phases, strict=True):
        panel.set(title=phase, xlabel="step", ylabel="mean loss of the newest steps")
        there = {name: training[phase] for name, training in trainings.items() if phase in training}
        lines = [
            panel.plot(curve.steps, curve.losses, color=colours[name], label=f"{name} {curve.losses[-1]:.4g}")[0]
            for name, curve in there.items()
        ]
        rates = panel.twinx()
        rates.set_ylabel("learning rate")
        first = next(iter(there.values()))
        lines += rates.plot(first.steps, first.rates, color=GREY, linestyle="--", linewidth=1, label="learning rate")
        panel.legend(handles=lines)
    return drawn


def _add(found: dict[str, Curve], row: Row) -> None:
    phase, step, _, loss, rate, _ = row
    curve = found.setdefault(phase, Curve([], [], []))
    curve.steps.append(int(step))
    curve.losses.append(float(loss))
    curve.rates.append(float(rate))

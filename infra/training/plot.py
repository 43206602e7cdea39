"""Plots trainings as an SVG, written directly: a few lines and words need no library."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import ceil, floor, isfinite, log10
from pathlib import Path
from typing import NamedTuple

from infra.errors import NothingToPlotError
from infra.training.log import Row, read_log

WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM = 760, 300, 70, 24, 46, 44  # pixels; heights are per panel
POINTS = 1000  # maximum per curve
TICKS = 6  # per axis, approximately
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # distinguishable by colour-blind people too (Okabe, Ito)
GREY = "#999999"


class Curve(NamedTuple):
    """A phase of one training: ascending steps, with mean loss and learning rate of each."""

    steps: list[int]
    losses: list[float]
    rates: list[float]


class Axis(NamedTuple):
    """Values from `low` to `high` laid out from `start` to `end` (pixels)."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The position of a value (pixels)."""
        return self.start + (value - self.low) / (self.high - self.low or 1.0) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers between low and high."""
        step = _round_step((self.high - self.low) / TICKS)
        return [n * step for n in range(ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9) + 1)]


def write_plot(logs: Sequence[Path], out: Path) -> Path:
    """Draw the tables of one or more trainings into an SVG file, replacing an existing one.

    Raises:
        NothingToPlotError: a file is not a table of steps, or has none.
    """
    picture = svg({path.stem: curves(path) for path in logs})
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(picture, encoding="utf-8")
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


def svg(trainings: Mapping[str, Mapping[str, Curve]]) -> str:
    """One panel per phase with the loss of each training; the dashed line is the learning rate of the first training with that phase."""
    phases = list(dict.fromkeys(phase for training in trainings.values() for phase in training))
    colours = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(trainings)}
    height = PANEL * len(phases)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for n, phase in enumerate(phases):
        drawn = {name: training[phase] for name, training in trainings.items() if phase in training}
        lines += [f'<g transform="translate(0 {n * PANEL})">', *_panel(phase, drawn, colours), "</g>"]
    return "\n".join([*lines, "</svg>", ""])


def _add(found: dict[str, Curve], row: Row) -> None:
    phase, step, _, loss, rate, _ = row
    curve = found.setdefault(phase, Curve([], [], []))
    curve.steps.append(int(step))
    curve.losses.append(float(loss))
    curve.rates.append(float(rate))


def _panel(phase: str, drawn: Mapping[str, Curve], colours: Mapping[str, str]) -> Iterable[str]:
    losses = [loss for curve in drawn.values() for loss in curve.losses if isfinite(loss)] or [0.0]
    across = Axis(0, max(curve.steps[-1] for curve in drawn.values()), LEFT, WIDTH - RIGHT)
    up = Axis(min(losses), max(losses), PANEL - BOTTOM, TOP)
    first = next(iter(drawn.values()))
    most = max(first.rates) or 1.0
    yield f'<text x="{LEFT}" y="20" font-weight="bold">{escape(phase)}: mean loss of the newest steps</text>'
    yield from _axes(across, up)
    yield _line(first.steps, first.rates, across, Axis(0, most, PANEL - BOTTOM, TOP), GREY, dashed=True)
    for name, curve in drawn.items():
        yield _line(curve.steps, curve.losses, across, up, colours[name])
    told = [*((name, colours[name], drawn[name].losses[-1]) for name in drawn), ("learning rate, at most", GREY, most)]
    for n, (name, colour, value) in enumerate(told):
        yield f'<text x="{WIDTH - RIGHT - 4}" y="{TOP + 16 * (n + 1)}" text-anchor="end" fill="{colour}">{escape(name)} {value:.4g}</text>'


def _axes(across: Axis, up: Axis) -> Iterable[str]:
    for tick in across.ticks():
        yield f'<text x="{across.at(tick):.1f}" y="{PANEL - BOTTOM + 18}" text-anchor="middle">{tick:,.0f}</text>'
    for tick in up.ticks():
        y = f"{up.at(tick):.1f}"
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="#dddddd"/>'
        yield f'<text x="{LEFT - 8}" y="{y}" text-anchor="end" dominant-baseline="middle">{tick:.4g}</text>'
    yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{PANEL - BOTTOM}" y2="{PANEL - BOTTOM}" stroke="black"/>'
    yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{PANEL - 8}" text-anchor="middle">step</text>'


def _line(steps: Sequence[int], values: Sequence[float], across: Axis, up: Axis, colour: str, dashed: bool = False) -> str:
    """A curve, without values that are not numbers, reduced to `POINTS` points: the last of each segment."""
    stretch = ceil(len(steps) / POINTS)
    kept = [n for n in range((len(steps) - 1) % stretch, len(steps), stretch) if isfinite(values[n])]
    points = " ".join(f"{across.at(steps[n]):.2f},{up.at(values[n]):.2f}" for n in kept)
    style = 'stroke-dasharray="4 3" stroke-width="1"' if dashed else 'stroke-width="1.6"'
    return f'<polyline points="{points}" fill="none" stroke="{colour}" {style}/>'


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least this large."""
    if not least > 0:
        return 1.0
    power = 10.0 ** floor(log10(least))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= least * (1 - 1e-9))

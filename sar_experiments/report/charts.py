"""Line charts as SVG: a few curves with axes, for a page that loads nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Okabe and Ito's palette, which colour-blind people can tell apart; yellow is too pale on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
BASELINE = "#000000"
MOST_POINTS = 400  # of a drawn curve

_WIDTH, _HEIGHT = 560, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 14, 50
_TICKS = 5
_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, eq=False)
class Line:
    """One curve.

    Attributes:
        name: For the legend.
        xs: (N,).
        ys: (N,).
        colour: CSS colour.
        is_dashed: Drawn dashed.
        mark: A point to set off, or None.
    """

    name: str
    xs: NDArray[np.float64]
    ys: NDArray[np.float64]
    colour: str
    is_dashed: bool = False
    mark: tuple[float, float] | None = None


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: What it counts.
        low: Its start; above 0 where it is logarithmic.
        high: Its end, above ``low``.
        is_log: Logarithmic.
    """

    label: str
    low: float
    high: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies, 0 at the start and 1 at the end, never outside."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return some round values."""
        if self.is_log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            return [10.0**power for power in range(first, last + 1)]
        rough = (self.high - self.low) / _TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(nice * power for nice in _NICE if nice * power >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [step * k for k in range(first, last + 1)]


def spanning(label: str, lines: Sequence[NDArray[np.float64]]) -> Axis:
    """Return an axis from 0 that holds all values."""
    highest = max((float(values.max()) for values in lines if len(values)), default=1.0)
    return Axis(label, 0.0, highest * 1.05 if highest > 0 else 1.0)


def chart(lines: Sequence[Line], x: Axis, y: Axis, *, title: str) -> str:
    """Return an SVG element; curves are thinned to MOST_POINTS.

    Args:
        lines: What is drawn, the first ones on top.
        x: The horizontal axis.
        y: The vertical one.
        title: Read out by screen readers.
    """
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" class="chart">',
        f"<title>{escape(title)}</title>",
        *_grid(x, y),
    ]
    parts += [_curve(line, x, y) for line in reversed(lines)]
    return "".join([*parts, "</svg>"])


def legend(lines: Sequence[Line]) -> str:
    """Return the names of the curves as a list in HTML."""
    entries = [
        f'<li><svg viewBox="0 0 26 10" class="key"><line x1="0" y1="5" x2="26" y2="5"'
        f" {_stroke(line)}/></svg>{escape(line.name)}</li>"
        for line in lines
    ]
    return f'<ul class="legend">{"".join(entries)}</ul>'


def thinned(count: int) -> NDArray[np.int64]:
    """Return at most MOST_POINTS indices, evenly spread, the first and the last included."""
    places = np.linspace(0, max(0, count - 1), min(count, MOST_POINTS))
    return np.unique(places.round().astype(np.int64))


def _curve(line: Line, x: Axis, y: Axis) -> str:
    kept = thinned(len(line.xs))
    points = [_point(x, y, line.xs[k], line.ys[k]) for k in kept]
    drawn = " ".join(f"{left:.1f},{top:.1f}" for left, top in points)
    svg = f'<polyline fill="none" points="{drawn}" {_stroke(line)}/>'
    if line.mark is not None or len(points) == 1:
        left, top = _point(x, y, *line.mark) if line.mark is not None else points[0]
        svg += f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4.5" fill="{line.colour}"/>'
    return svg


def _stroke(line: Line) -> str:
    dashes = ' stroke-dasharray="6 4"' if line.is_dashed else ""
    return f'stroke="{line.colour}" stroke-width="2" stroke-linejoin="round"{dashes}'


def _point(x: Axis, y: Axis, across: float, up: float) -> tuple[float, float]:
    return (
        _LEFT + x.place(float(across)) * (_WIDTH - _LEFT - _RIGHT),
        _HEIGHT - _BOTTOM - y.place(float(up)) * (_HEIGHT - _TOP - _BOTTOM),
    )


def _grid(x: Axis, y: Axis) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for tick in x.ticks():
        left = _point(x, y, tick, y.low)[0]
        parts.append(
            f'<line class="grid" x1="{left:.1f}" y1="{_TOP}" x2="{left:.1f}" y2="{bottom}"/>'
        )
        parts.append(f'<text x="{left:.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    for tick in y.ticks():
        top = _point(x, y, x.low, tick)[1]
        parts.append(
            f'<line class="grid" x1="{_LEFT}" y1="{top:.1f}" x2="{right}" y2="{top:.1f}"/>'
        )
        parts.append(f'<text x="{_LEFT - 7}" y="{top + 4:.1f}" text-anchor="end">{tick:g}</text>')
    middle_x, middle_y = (_LEFT + right) / 2, (_TOP + bottom) / 2
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>')
    parts.append(
        f'<text x="{middle_x}" y="{_HEIGHT - 10}" text-anchor="middle">{escape(x.label)}</text>'
    )
    parts.append(
        f'<text transform="translate(15 {middle_y}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.label)}</text>"
    )
    return parts

"""Figures of a data check: class balance, sizes and shapes of boxes against anchors, pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from sar_experiments.data.checks import Report

WIDTH_IN, HEIGHT_IN = 10.0, 7.0
_CLASSES_AT_HEIGHT = 12  # with more, the figure grows
_BAR_IN = 0.25
_UNBALANCED = 20  # from this ratio on, the rare classes can be seen on a logarithmic axis alone
_BINS = 30
_MODEL: dict[str, Any] = {"color": "0.35", "linestyle": ":", "linewidth": 1.2}
_PROPOSED: dict[str, Any] = {"color": "tab:green", "linestyle": "--", "linewidth": 1.0}


def write_figures(report: Report, folder: Path) -> Path:
    """Write check.png with four panels and return its path."""
    surplus = max(0, len(report.parts["train"].objects) - _CLASSES_AT_HEIGHT)
    size = (WIDTH_IN, HEIGHT_IN + surplus * _BAR_IN)
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=size, layout="constrained")
        (classes, pixels), (sizes, shapes) = figure.subplots(2, 2)
        _draw_classes(classes, report)
        _draw_pixels(pixels, report)
        _draw_sizes(sizes, report)
        _draw_shapes(shapes, report)
        _draw_legend(figure, report)
        path = folder / "check.png"
        unfinished = folder / ".check.part.png"
        figure.savefig(unfinished, dpi=120)
        unfinished.replace(path)
    return path


def _colour(index: int) -> str:
    return f"C{index}" if index < 2 else f"C{index + 1}"  # noqa: PLR2004 - C2, green, is taken


def _draw_legend(figure: Figure, report: Report) -> None:
    parts = [mpl.patches.Patch(color=_colour(i), label=part) for i, part in enumerate(report.parts)]
    anchors = [mpl.lines.Line2D([], [], label="anchors of the model", **_MODEL)]
    if report.proposal is not None:
        anchors.append(mpl.lines.Line2D([], [], label="anchors by k-means", **_PROPOSED))
    handles = [*parts, *anchors]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)


def _draw_classes(axes: mpl.axes.Axes, report: Report) -> None:
    names = list(report.parts["train"].objects)
    places = np.arange(len(names))
    height = 0.8 / len(report.parts)
    for index, numbers in enumerate(report.parts.values()):
        counts = [numbers.objects[name] for name in names]
        bars = axes.barh(places + index * height, counts, height, color=_colour(index))
        axes.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize=7)
    axes.set_yticks(places + 0.4 - height / 2, names)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    found = [count for count in report.parts["train"].objects.values() if count]
    if found and max(found) > _UNBALANCED * min(found):
        axes.set_xscale("log")
    axes.set_xlabel("objects")
    axes.set_title("class balance")


def _draw_pixels(axes: mpl.axes.Axes, report: Report) -> None:
    for index, numbers in enumerate(report.parts.values()):
        if numbers.histogram:
            edges = np.linspace(0, 1, len(numbers.histogram) + 1)
            axes.stairs(numbers.histogram, edges, color=_colour(index))
    axes.set_yscale("log")
    axes.set_xlabel("encoded pixel: what the network sees before mean and std")
    axes.set_ylabel("share of the pixels")
    axes.set_title("pixels")


def _draw_sizes(axes: mpl.axes.Axes, report: Report) -> None:
    sizes = {part: np.sqrt(n.sizes.prod(axis=1)) for part, n in report.parts.items()}
    _draw_shares(axes, sizes)
    proposal = report.proposal
    _draw_marks(axes, report.anchor_sizes, proposal.sizes if proposal is not None else ())
    axes.set_xlabel("root of the box area in px, as the network sees it")
    axes.set_title("box sizes")


def _draw_shapes(axes: mpl.axes.Axes, report: Report) -> None:
    shapes = {part: n.sizes[:, 1] / n.sizes[:, 0] for part, n in report.parts.items()}
    _draw_shares(axes, shapes)
    proposal = report.proposal
    _draw_marks(axes, [report.anchor_ratios], [proposal.ratios] if proposal is not None else ())
    axes.set_xlabel("height over width")
    axes.set_title("box shapes")


def _draw_shares(axes: mpl.axes.Axes, values: Mapping[str, NDArray[np.float64]]) -> None:
    """Draw the share of boxes per bin, bins alike for all parts, even in the logarithm."""
    every = np.concatenate([each for each in values.values() if len(each)] or [np.ones(1)])
    edges = np.geomspace(every.min() / 1.1, every.max() * 1.1, _BINS + 1)
    for index, of_part in enumerate(values.values()):
        counts, _ = np.histogram(of_part, bins=edges)
        axes.stairs(counts / max(1, len(of_part)), edges, color=_colour(index))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value:g}")
    axes.set_ylabel("share of the boxes")


def _draw_marks(
    axes: mpl.axes.Axes, model: Iterable[Iterable[float]], proposed: Iterable[Iterable[float]]
) -> None:
    for levels, style in ((model, _MODEL), (proposed, _PROPOSED)):
        for value in (value for level in levels for value in level):
            axes.axvline(value, zorder=0, **style)

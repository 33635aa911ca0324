"""Figures of a data check: class balance, box sizes against anchors, pixel histograms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

    from sar_experiments.data.checks import Report

WIDTH_IN, HEIGHT_IN = 9.0, 3.4


def write_figures(report: Report, folder: Path) -> Path:
    """Write check.png with three panels and return its path."""
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        classes, sizes, pixels = figure.subplots(1, 3)
        _draw_classes(classes, report)
        _draw_sizes(sizes, report)
        _draw_pixels(pixels, report)
        path = folder / "check.png"
        unfinished = folder / ".check.part.png"
        figure.savefig(unfinished, dpi=120)
        unfinished.replace(path)
    return path


def _draw_classes(axes: mpl.axes.Axes, report: Report) -> None:
    names = list(report.parts["train"].objects)
    places = np.arange(len(names))
    height = 0.8 / len(report.parts)
    for index, (part, numbers) in enumerate(report.parts.items()):
        counts = [numbers.objects[name] for name in names]
        axes.barh(places + index * height, counts, height, label=part)
    axes.set_yticks(places + 0.4 - height / 2, names)
    axes.invert_yaxis()
    axes.set_xlabel("objects")
    axes.legend(frameon=False)
    axes.set_title("class balance")


def _draw_sizes(axes: mpl.axes.Axes, report: Report) -> None:
    sizes = {part: np.sqrt(n.sizes.prod(axis=1)) for part, n in report.parts.items()}
    every = np.concatenate([values for values in sizes.values() if len(values)] or [np.ones(1)])
    bins = np.geomspace(max(1.0, every.min()), max(2.0, every.max() * 1.01), 25)
    for part, values in sizes.items():
        if not len(values):
            continue
        axes.hist(values, bins=bins.tolist(), histtype="step", density=True, label=part)
    for size in (size for level in report.anchor_sizes for size in level):
        axes.axvline(size, color="0.6", linestyle=":", zorder=0)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value:g}")
    axes.set_xlabel("root of the box area in px (dotted: anchors)")
    axes.set_yticks([])
    axes.set_title("box sizes")


def _draw_pixels(axes: mpl.axes.Axes, report: Report) -> None:
    for part, numbers in report.parts.items():
        if numbers.histogram:
            edges = np.linspace(0, 1, len(numbers.histogram) + 1)
            axes.stairs(numbers.histogram, edges, label=part)
    axes.set_yscale("log")
    axes.set_xlabel("encoded pixel")
    axes.set_title("pixel histogram")

"""The charts of a report: precision-recall, recall over false alarms, training."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from sar_experiments.report.analysis import progress_of
from sar_experiments.report.charts import (
    BASELINE,
    COLOURS,
    Axis,
    Line,
    chart,
    legend,
    spanning,
)
from sar_experiments.report.comparison import name_of
from sar_experiments.report.numbers import Footing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from sar_experiments.report.analysis import Analysis, Measured
    from sar_experiments.report.comparison import Section
    from sar_experiments.report.truth import Truth

_NONE: NDArray[np.float64] = np.zeros(0)
_FEWEST = 1e-3  # false alarms per image or km² that the axis begins at, at most


def curves(section: Section, metric: str) -> Iterator[str]:
    """Yield the charts of a section, one legend for all of them, and what they are counted on."""
    styles = _styles(section.analyses)
    yield "<h3>Curves of the best runs</h3>"
    yield legend([Line(name, _NONE, _NONE, *style) for name, style in styles.items()])
    yield '<div class="charts">'
    for footing in section.rankings:
        views = section.views(footing)
        if views:
            words = f", {footing.words}" if section.is_mixed else ""
            yield from _of_views(views, section.truth, styles, words)
    words = f", {Footing.per_class.words}," if section.is_mixed else ""
    yield from _training(section.analyses, styles, metric, words)
    yield "</div>"


def _of_views(
    views: Sequence[Measured],
    truth: Truth | None,
    styles: Mapping[str, tuple[str, bool]],
    words: str,
) -> Iterator[str]:
    assert truth is not None
    recall = [_precision_recall(each, *styles[name_of(each.run)]) for each in views]
    alarms = [_false_alarms(each, truth, *styles[name_of(each.run)]) for each in views]
    ious = sorted({f"{each.match_iou:g}" for each in views})
    unit = Axis("recall", 0.0, 1.0), Axis("precision", 0.0, 1.0)
    title = f"Precision over recall at IoU {', '.join(ious)}{words}"
    one = all(len(each.metrics.per_class) == 1 for each in views)
    dot = "the dot is at the threshold" if one else "the dot is at the thresholds per class"
    yield _figure(chart(recall, *unit, title=title), f"{title}; {dot}.")
    per = "km²" if truth.area_km2 else "image"
    xs = [line.xs for line in alarms if len(line.xs)]
    lowest = min((float(x.min()) for x in xs), default=_FEWEST)
    highest = max((float(x.max()) for x in xs), default=1.0)
    lowest = 10.0 ** math.floor(math.log10(lowest))  # a decade, so that the axis has a name there
    across = Axis(f"false alarms per {per}", lowest, max(highest, lowest * 10), is_log=True)
    title = f"Recall over false alarms per {per}{words}"
    yield _figure(chart(alarms, across, Axis("recall", 0.0, 1.0), title=title), f"{title}.")


def _styles(analyses: Sequence[Analysis]) -> dict[str, tuple[str, bool]]:
    """Return colour and whether dashed by name; CFARs are black and dashed."""
    networks = [each for each in analyses if not each.run.is_cfar]
    return {
        name_of(each.run): (BASELINE, True)
        if each.run.is_cfar
        else (COLOURS[networks.index(each) % len(COLOURS)], networks.index(each) >= len(COLOURS))
        for each in analyses
    }


def _precision_recall(view: Measured, colour: str, is_dashed: bool) -> Line:
    curve = view.metrics.curves["all"]
    values = view.metrics.values
    recall, precision = values["recall"], values["precision"]
    mark = None if recall is None or precision is None else (recall, precision)
    return Line(name_of(view.run), curve.recall, curve.precision, colour, is_dashed, mark)


def _false_alarms(view: Measured, truth: Truth, colour: str, is_dashed: bool) -> Line:
    """Return recall over false alarms; points without any are not on a logarithmic axis."""
    curve = view.metrics.curves["all"]
    hits = curve.recall * truth.objects
    found = np.divide(hits, curve.precision, out=np.zeros_like(hits), where=curve.precision > 0)
    alarms: NDArray[np.float64] = np.round(found - hits)
    some = alarms > 0
    over = truth.area_km2 or len(truth.part.samples) or 1
    return Line(name_of(view.run), alarms[some] / over, curve.recall[some], colour, is_dashed)


def _training(
    analyses: Sequence[Analysis],
    styles: Mapping[str, tuple[str, bool]],
    metric: str,
    words: str,
) -> Iterator[str]:
    progress = [progress_of(each.run.folder, metric) for each in analyses]
    for name, label, how in ((metric, f"validation {metric}", words), ("loss", "total loss", "")):
        lines = [
            Line(name_of(each.run), *_columns(curves[name]), *styles[name_of(each.run)])
            for each, curves in zip(analyses, progress, strict=True)
            if name in curves
        ]
        if not lines:
            continue
        x = spanning("step", [line.xs for line in lines])
        y = spanning(label, [line.ys for line in lines])
        title = f"{label[0].upper()}{label[1:]}{how} while training"
        yield _figure(chart(lines, x, y, title=title), f"{title}.")


def _columns(
    points: Sequence[tuple[int, float]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    array = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _figure(drawn: str, caption: str) -> str:
    return f"<figure>{drawn}<figcaption>{escape(caption)}</figcaption></figure>"

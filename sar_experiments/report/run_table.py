"""The table of runs: a row per setting, with what tells it apart and its numbers over seeds."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from sar_experiments.report.comparison import PART_NAMES, number, rate
from sar_experiments.report.markup import table
from sar_experiments.report.tables import device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sar_experiments.report.comparison import Section
    from sar_experiments.report.numbers import Footing, Setting, Spread

_SHOWN = {"AP50": "AP50", "AP": "AP", "precision": "precision", "recall": "recall", "F1": "f1"}
_MOST_COLUMNS = 6  # of what differs between runs; with more it is one column
_ALL = "setting"
_MOST_NAMES = 10


def runs_table(section: Section, footing: Footing, part: str, metric: str) -> Iterator[str]:
    """Yield the settings that have numbers on a footing, best first."""
    settings = section.rankings[footing]
    changes = [each.best.changes for each in settings]
    columns = [key for key in dict.fromkeys(k for each in changes for k in each) if key != "model"]
    if len(columns) > _MOST_COLUMNS:
        columns = [_ALL]
    per_km2 = section.truth is not None and section.truth.pixel is not None
    head = ["", *columns, "model", "task", "n", "failed", *_SHOWN]
    head += ["false alarms per image", *(["false alarms per km²"] if per_km2 else [])]
    head += ["seconds", "device", "best run"]
    rows = [
        [str(place), *_row(setting, columns, metric, footing, per_km2=per_km2)]
        for place, setting in enumerate(settings, start=1)
    ]
    failed = len(columns) + 4
    words = (*range(1, len(columns) + 3), failed, len(head) - 2, len(head) - 1)
    what = ""
    if section.is_mixed:
        all_of_them = len(settings) == len(section.settings)
        who = "all detectors" if all_of_them else "detectors that name classes"
        what = f", {footing.words}: {who}"
    yield f"<h3>Runs on the {PART_NAMES[part]} split{what}</h3>"
    yield table(head, rows, words=words)


def explained(section: Section, part: str) -> Iterator[str]:
    """Yield what the columns of the tables of runs mean."""
    also = " which is these images," if part == "val" else " never on these images,"
    if section.is_mixed:
        yield (
            '<p class="small">Where a detector names no classes, all are compared class-agnostic: a'
            " detection hits any object that it overlaps enough, from one score on for all its"
            " detections; of two boxes with different names on one object the second is a false"
            " alarm. Per class, a hit must have the object's class, too. Class-agnostic numbers"
            " cannot be compared with those per class.</p>"
        )
    yield (
        '<p class="small">Runs that differ in the seed alone are one row: mean ± standard deviation'
        " of the sample over the n seeds that finished. A row that lost a seed stands below all"
        " that lost none, as what is left of it flatters it. Precision, recall, F1 and false alarms"
        f" count what scores at least as much as the run chose on its validation split,{also}"
        f"{'' if section.is_mixed else ' per class,'} and at the overlap (IoU) of its"
        " config.</p>"
    )
    repeats = [run.name for setting in section.settings for run in setting.repeats]
    if repeats:
        told = ", ".join(repeats[:_MOST_NAMES]) + (" …" if len(repeats) > _MOST_NAMES else "")
        yield (
            '<p class="small">Left out of the means, since another run has the same setting and'
            f" seed: {escape(told)}.</p>"
        )


def _row(
    setting: Setting, columns: Sequence[str], metric: str, footing: Footing, *, per_km2: bool
) -> list[str]:
    run = setting.best
    told = {_ALL: " ".join(f"{key}={value}" for key, value in run.changes.items()), **run.changes}
    cells = [told.get(key, "") for key in columns]
    cells += [run.model, run.result.task]
    standing = setting.standing(footing.of(metric))
    cells += [str(standing.n), standing.failures or "-"]
    cells += [_spread(setting.spread(footing.of(name)), number) for name in _SHOWN.values()]
    cells.append(_spread(setting.spread(footing.of("false_alarms_per_image")), rate))
    if per_km2:
        cells.append(_spread(setting.spread(footing.of("false_alarms_per_km2")), rate))
    seconds = sum(each.result.seconds for each in setting.runs) / len(setting.runs)
    return [*cells, f"{seconds:,.0f}", device(run), run.name]


def _spread(spread: Spread | None, shown: Callable[[float | None], str]) -> str:
    if spread is None:
        return "-"
    if spread.deviation is None:
        return shown(spread.mean)
    return f"{shown(spread.mean)} ±\N{NO-BREAK SPACE}{shown(spread.deviation)}"

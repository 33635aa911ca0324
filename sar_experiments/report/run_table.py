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
    from sar_experiments.report.numbers import Setting, Spread

_SHOWN = {"AP50": "AP50", "AP": "AP", "precision": "precision", "recall": "recall", "F1": "f1"}
_MOST_COLUMNS = 6  # of what differs between runs; with more it is one column
_ALL = "setting"
_MOST_NAMES = 10


def runs_table(section: Section, part: str) -> Iterator[str]:
    """Yield the table and what its columns mean."""
    settings = section.settings
    changes = [each.best.changes for each in settings]
    columns = [key for key in dict.fromkeys(k for each in changes for k in each) if key != "model"]
    if len(columns) > _MOST_COLUMNS:
        columns = [_ALL]
    per_km2 = section.truth is not None and section.truth.pixel is not None
    head = ["", *columns, "model", "task", "seeds", *_SHOWN]
    head += ["false alarms per image", *(["per km²"] if per_km2 else [])]
    head += ["seconds", "device", "best run"]
    rows = [
        [str(place), *_row(setting, columns, per_km2=per_km2)]
        for place, setting in enumerate(settings, start=1)
    ]
    words = (*range(1, len(columns) + 3), len(head) - 2, len(head) - 1)
    yield f"<h3>Runs on the {PART_NAMES[part]} part</h3>"
    yield table(head, rows, words=words)
    yield (
        '<p class="small">Runs that differ in the seed alone are one row: mean ± standard deviation'
        " of the sample. Precision, recall, F1 and false alarms are at each run's own threshold of"
        " the best F1, which is found on these images too, and at the overlap (IoU) of its"
        " config.</p>"
    )
    repeats = [run.name for setting in settings for run in setting.repeats]
    if repeats:
        told = ", ".join(repeats[:_MOST_NAMES]) + (" …" if len(repeats) > _MOST_NAMES else "")
        yield (
            '<p class="small">Left out of the means, since another run has the same setting and'
            f" seed: {escape(told)}.</p>"
        )


def _row(setting: Setting, columns: Sequence[str], *, per_km2: bool) -> list[str]:
    run = setting.best
    told = {_ALL: " ".join(f"{key}={value}" for key, value in run.changes.items()), **run.changes}
    cells = [told.get(key, "") for key in columns]
    cells += [run.model, run.result.task, str(len(setting.runs))]
    cells += [_spread(setting.spread(name), number) for name in _SHOWN.values()]
    cells.append(_spread(setting.spread("false_alarms_per_image"), rate))
    if per_km2:
        cells.append(_spread(setting.spread("false_alarms_per_km2"), rate))
    seconds = sum(each.result.seconds for each in setting.runs) / len(setting.runs)
    return [*cells, f"{seconds:,.0f}", device(run), run.name]


def _spread(spread: Spread | None, shown: Callable[[float | None], str]) -> str:
    if spread is None:
        return "-"
    if spread.deviation is None:
        return shown(spread.mean)
    return f"{shown(spread.mean)} ± {shown(spread.deviation)}"

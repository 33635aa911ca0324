"""A report's numbers for programs: report.json, and report.csv with a row per run."""

from __future__ import annotations

import csv
import io
import math
import shlex
from typing import TYPE_CHECKING, Any

from sar_experiments.report.analysis import SLIGHT_IOU, progress_of
from sar_experiments.report.charts import thinned
from sar_experiments.report.comparison import sentences
from sar_experiments.report.numbers import COUNTED, RECORDED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sar_experiments.evaluate.metrics import Curve
    from sar_experiments.report.analysis import Analysis
    from sar_experiments.report.comparison import Section
    from sar_experiments.report.numbers import Setting
    from sar_experiments.report.runner import Report
    from sar_experiments.report.runs import Run

NUMBERS = (*RECORDED, *COUNTED)
DOOR = "python -m sar_experiments"


def as_json(report: Report) -> dict[str, Any]:
    """Return all numbers as plain values; curves thinned to some hundred points."""
    return {
        "metric": report.metric,
        "part": report.part,
        "sections": [_section(each, report) for each in report.sections],
        "not_compared": [_about(run) for run in report.found.others],
        "unreadable": [str(folder) for folder in report.found.unread],
        "left_out": dict(report.found.left_out),
    }


def as_csv(report: Report) -> str:
    """Return a row per run: those that can be compared, best first, then the others."""
    runs = [
        (section.name, setting.values[run.name], run)
        for section in report.sections
        for setting in section.settings
        for run in (*setting.runs, *setting.repeats)
    ]
    rows: list[tuple[str, Any, Run]] = [*runs, *(("", {}, run) for run in report.found.others)]
    changed = list(dict.fromkeys(key for _, _, run in rows for key in run.changes))
    others = list(
        dict.fromkeys(
            name for _, _, run in rows for name in run.result.metrics if name not in NUMBERS
        )
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            *("data", "run", "state", "task", "model", "seed", *changed, *NUMBERS, *others),
            *("seconds", "device", "config_hash", "git_commit", "why", "folder"),
        ]
    )
    for data, values, run in rows:
        result = run.result
        writer.writerow(
            [data, run.name, run.state, result.task, run.model, run.seed]
            + [run.changes.get(key, "") for key in changed]
            + [values.get(name) for name in NUMBERS]
            + [result.metrics.get(name) for name in others]
            + [result.seconds, device(run), result.config_hash, result.git_commit or ""]
            + [result.why, str(run.folder)]
        )
    return text.getvalue()


def device(run: Run) -> str:
    """Return where a run computed."""
    count = len(run.result.gpus)
    return "CPU" if not count else "GPU" if count == 1 else f"{count} GPUs"


def command(run: Run) -> str:
    """Return the command line that made a run."""
    return f"{DOOR} {shlex.join(run.result.overrides)}"


def _section(section: Section, report: Report) -> dict[str, Any]:
    truth = section.truth
    data: dict[str, Any] | None = None
    if truth is not None:
        data = {
            "key": truth.key,
            "source": str(truth.part.source),
            "images": len(truth.part.samples),
            "objects": truth.objects,
            "classes": list(truth.part.classes),
            "missing_images": truth.missing,
            "area_km2": truth.area_km2,
            "pixel_m": None if truth.pixel is None else truth.pixel.mean_m,
            "pixel_m_from": None if truth.pixel is None else truth.pixel.origin,
        }
    return {
        "name": section.name,
        "data": data,
        "says": sentences(section, metric=report.metric, part=report.part),
        "notes": list(section.notes),
        "settings": [_setting(each, section) for each in section.settings],
        "details": [_details(each, report.metric) for each in section.analyses],
    }


def _setting(setting: Setting, section: Section) -> dict[str, Any]:
    spreads = {name: setting.spread(name) for name in NUMBERS}
    return {
        "changes": dict(setting.best.changes),
        "over_seeds": {
            name: {"mean": each.mean, "standard_deviation": each.deviation, "n": each.count}
            for name, each in spreads.items()
            if each is not None
        },
        "runs": [
            {
                **_about(run),
                "learnt_images": section.seen[run.name],
                "values": dict(setting.values[run.name]),
            }
            for run in setting.runs
        ],
        "repeats": [_about(run) for run in setting.repeats],
    }


def _about(run: Run) -> dict[str, Any]:
    result = run.result
    return {
        "run": run.name,
        "folder": str(run.folder),
        "state": run.state,
        "why": result.why,
        "task": result.task,
        "model": run.model,
        "seed": run.seed,
        "changes": dict(run.changes),
        "metrics": dict(result.metrics),
        "seconds": result.seconds,
        "device": device(run),
        "started": result.started,
        "config_hash": result.config_hash,
        "git_commit": result.git_commit,
        "versions": dict(result.versions),
        "command": command(run),
    }


def _details(analysis: Analysis, metric: str) -> dict[str, Any]:
    metrics = analysis.metrics
    return {
        "run": analysis.run.name,
        "match_iou": analysis.match_iou,
        "threshold": analysis.threshold,
        "doubt": analysis.doubt,
        "per_class": [
            {name: getattr(each, name) for name in each.__dataclass_fields__}
            for each in metrics.per_class
        ],
        "sizes": [
            {
                "low_px": each.low_px,
                "high_px": None if math.isinf(each.high_px) else each.high_px,
                "objects": each.truths,
                "hits": each.hits,
                "recall": each.recall,
                "AP": each.ap,
                "AP50": each.ap50,
            }
            for each in analysis.sizes
        ],
        "noticed": {
            "iou": SLIGHT_IOU,
            "hits": analysis.noticed[0],
            "false_alarms": analysis.noticed[1],
        },
        "confusion": None if analysis.confusion is None else analysis.confusion.tolist(),
        "curves": {name: dict(_curve(curve)) for name, curve in metrics.curves.items()},
        "training": progress_of(analysis.run.folder, metric),
    }


def _curve(curve: Curve) -> Iterator[tuple[str, list[float]]]:
    kept = thinned(len(curve.scores))
    for name in ("scores", "precision", "recall"):
        yield name, getattr(curve, name)[kept].tolist()

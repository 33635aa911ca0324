"""A report's numbers for programs: report.json, and report.csv with a row per run."""

from __future__ import annotations

import csv
import io
import math
import shlex
from typing import TYPE_CHECKING, Any

from sar_experiments.report import numbers
from sar_experiments.report.analysis import SLIGHT_IOU, progress_of
from sar_experiments.report.charts import thinned
from sar_experiments.report.comparison import sentences
from sar_experiments.report.numbers import Footing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sar_experiments.evaluate.metrics import Curve
    from sar_experiments.report.analysis import Analysis, Measured
    from sar_experiments.report.comparison import Section
    from sar_experiments.report.numbers import Setting
    from sar_experiments.report.runner import Report
    from sar_experiments.report.runs import Run
    from sar_experiments.standings import Standing

NUMBERS = tuple(footing.of(name) for footing in Footing for name in numbers.NUMBERS)
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
        (section.name, setting, run)
        for section in report.sections
        for setting in section.settings
        for run in (*setting.runs, *setting.repeats)
    ]
    rows: list[tuple[str, Setting | None, Run]] = [
        *runs, *(("", None, run) for run in report.found.others)
    ]  # fmt: skip
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
            *("n", "failed", "failures"),
            *("seconds", "device", "config_hash", "git_commit", "why", "folder"),
        ]
    )
    for data, setting, run in rows:
        result = run.result
        values: Mapping[str, float | None] = {} if setting is None else setting.values[run.name]
        standing = None if setting is None else _standing(setting, report.metric)
        writer.writerow(
            [data, run.name, run.state, result.task, run.model, run.seed]
            + [run.changes.get(key, "") for key in changed]
            + [values.get(name) for name in NUMBERS]
            + [result.metrics.get(name) for name in others]
            + _over_seeds(standing)
            + [result.seconds, device(run), result.config_hash, result.git_commit or ""]
            + [result.why, str(run.folder)]
        )
    return text.getvalue()


def _standing(setting: Setting, metric: str) -> Standing:
    """Return what the seeds of a setting gave, on the footing that it has."""
    by_class = setting.standing(metric)
    is_named = setting.names_classes or by_class.n
    return by_class if is_named else setting.standing(Footing.class_agnostic.of(metric))


def _over_seeds(standing: Standing | None) -> list[object]:
    if standing is None:
        return ["", "", ""]
    return [standing.n, sum(standing.failed.values()), standing.failures]


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
        "rankings": {
            footing.name: [each.best.name for each in settings]
            for footing, settings in section.rankings.items()
        },
        "says": sentences(section, metric=report.metric, part=report.part),
        "notes": list(section.notes),
        "settings": [_setting(each, section, report.metric) for each in section.settings],
        "details": [_details(each, report.metric) for each in section.analyses],
    }


def _setting(setting: Setting, section: Section, metric: str) -> dict[str, Any]:
    standing = _standing(setting, metric)
    spreads = {name: setting.spread(name) for name in NUMBERS}
    return {
        "changes": dict(setting.best.changes),
        "n": standing.n,
        "failed": dict(standing.failed),
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
    per_class = analysis.views.get(Footing.per_class)
    agnostic = analysis.views.get(Footing.class_agnostic)
    return {
        "run": analysis.run.name,
        "doubt": analysis.doubt,
        **(_view(per_class) if per_class is not None else {}),
        "class_agnostic": None if agnostic is None else _view(agnostic),
        "confusion": None if analysis.confusion is None else analysis.confusion.tolist(),
        "training": progress_of(analysis.run.folder, metric),
    }


def _view(view: Measured) -> dict[str, Any]:
    metrics = view.metrics
    return {
        "match_iou": view.match_iou,
        "thresholds": metrics.thresholds.to_plain(),
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
            for each in view.sizes
        ],
        "found": {
            name: {"hits": hits, "objects": objects} for name, (hits, objects) in view.found.items()
        },
        "noticed": {"iou": SLIGHT_IOU, "hits": view.noticed[0], "false_alarms": view.noticed[1]},
        "curves": {name: dict(_curve(curve)) for name, curve in metrics.curves.items()},
    }


def _curve(curve: Curve) -> Iterator[tuple[str, list[float]]]:
    kept = thinned(len(curve.scores))
    for name in ("scores", "precision", "recall"):
        yield name, getattr(curve, name)[kept].tolist()

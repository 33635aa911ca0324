"""The detections of one run against the truth: curves, sizes, confusions, what to picture."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_experiments import run_folder
from sar_experiments.data.annotations import Sample
from sar_experiments.detections import Detections
from sar_experiments.evaluate.metrics import (
    FALSE_ALARM,
    ON_CROWD,
    Metrics,
    assign,
    best_detections,
    measure,
)
from sar_experiments.evaluate.sizes import SizeBin, by_size, size_px

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sar_experiments.config import EvaluationConfig
    from sar_experiments.report.runs import Run
    from sar_experiments.report.truth import Truth

SLIGHT_IOU = 0.1
SCORE_DIGITS = 6  # of detections.json
_AGREE = 1e-3  # APs further apart were not computed from the same files
_BOX_NUMBERS = 4

HIT, MISS, FALSE = "hits", "misses", "false alarms"


@dataclass(frozen=True, eq=False)
class Case:
    """One hit, miss or false alarm.

    Attributes:
        kind: HIT, MISS or FALSE.
        sample: Its image.
        box: Of the detection, or of the missed object: left, top, right, bottom in pixels.
        score: Of the detection; None for a miss.
        class_name: Likewise.
        size_px: Root of the box area.
    """

    kind: str
    sample: Sample
    box: tuple[float, ...]
    score: float | None
    class_name: str
    size_px: float


@dataclass(frozen=True, eq=False)
class Analysis:
    """What the detections of a run say in detail.

    Attributes:
        run: Whose.
        metrics: Measured anew from detections.json.
        threshold: Score from which detections count, as recorded, in the digits of the file.
        match_iou: Overlap from which a detection is a hit.
        detections: Image id -> what was found, as many as count.
        sizes: Smallest objects first.
        confusion: (classes + 1, classes + 1) counts, rows the truth, columns what was found; the
            last row false alarms, the last column misses. None for one class.
        noticed: Hits and false alarms at the threshold if an overlap of SLIGHT_IOU is enough:
            whether an object is noticed at all, however loose its box.
        doubt: One sentence where the files are not those that result.json was computed from.
    """

    run: Run
    metrics: Metrics
    threshold: float | None
    match_iou: float
    detections: dict[int, Detections]
    sizes: tuple[SizeBin, ...]
    confusion: NDArray[np.int64] | None
    noticed: tuple[int, int]
    doubt: str


def analyse(
    run: Run, truth: Truth, evaluation: EvaluationConfig, *, part: str, edges_px: Sequence[float]
) -> Analysis:
    """Measure a run's detections once more, in detail.

    Args:
        run: Whose.
        truth: What it was measured on.
        evaluation: How it was measured.
        part: ``val`` or ``test``.
        edges_px: Borders between size bins.

    Raises:
        ValueError: Its detections are missing, broken, or of other images.
    """
    prefix = "" if part == "val" else f"{part}/"
    samples, classes = truth.part.samples, truth.part.classes
    found = read_detections(run.folder / detections_file(part), classes=len(classes))
    limit, match_iou = evaluation.max_detections, evaluation.match_iou
    metrics = measure(samples, found, classes, max_detections=limit, match_iou=match_iou)
    recorded = run.result.metrics.get(f"{prefix}threshold")
    threshold = None if recorded is None else float(np.float32(round(recorded, SCORE_DIGITS)))
    best = best_detections(found, limit)
    sizes = by_size(
        samples, found, classes, edges_px=edges_px,
        max_detections=limit, match_iou=match_iou, threshold=threshold,
    )  # fmt: skip
    doubt = _doubt(run, metrics, prefix)
    several = len(classes) > 1
    confusion = _confusion(samples, best, len(classes), threshold, match_iou) if several else None
    noticed = _noticed(samples, best, threshold)
    return Analysis(run, metrics, threshold, match_iou, best, sizes, confusion, noticed, doubt)


def detections_file(part: str) -> str:
    """Return the name of the file with the detections of a part."""
    return run_folder.DETECTIONS if part == "val" else f"{part}_{run_folder.DETECTIONS}"


def read_detections(path: Path, *, classes: int) -> dict[int, Detections]:
    """Read COCO results whose categories count from 1.

    Raises:
        ValueError: The file is missing or broken; names it.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        by_image: dict[int, list[tuple[list[float], float, int]]] = {}
        for each in records:
            left, top, width, height = map(float, each["bbox"])
            kind = int(each["category_id"]) - 1
            if not 0 <= kind < classes:
                msg = f"category_id {kind + 1} is none of the {classes} classes"
                raise ValueError(msg)  # noqa: TRY301 - told with the file's name below
            box = [left, top, left + width, top + height]
            by_image.setdefault(int(each["image_id"]), []).append((box, each["score"], kind))
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise ValueError(msg) from error
    except (ValueError, TypeError, KeyError) as error:
        msg = f"{path} is no list of COCO results: {error}"
        raise ValueError(msg) from error
    return {image: Detections.of(*zip(*found, strict=True)) for image, found in by_image.items()}


def cases(analysis: Analysis, truth: Truth) -> dict[str, list[Case]]:
    """Return what to picture: misses, largest first; false alarms, most certain first; hits.

    Hits come in an order that any first few are spread evenly over the scores.
    """
    found: dict[str, list[Case]] = {MISS: [], FALSE: [], HIT: []}
    classes = truth.part.classes
    for sample in truth.part.samples:
        shown = _passed(analysis.detections, sample, analysis.threshold)
        matched = assign(sample, shown, match_iou=analysis.match_iou)
        for index in matched.missed:
            each = sample["annotations"][int(index)]
            name, size = classes[each["category_id"]], size_px(each)
            found[MISS].append(Case(MISS, sample, tuple(each["bbox"]), None, name, size))
        for box, score, kind, outcome in zip(
            shown.boxes.tolist(), shown.scores, shown.classes, matched.truth_of, strict=True
        ):
            if outcome != ON_CROWD:
                what = FALSE if outcome == FALSE_ALARM else HIT
                size = max(0.0, (box[2] - box[0]) * (box[3] - box[1])) ** 0.5
                case = Case(what, sample, tuple(box), float(score), classes[int(kind)], size)
                found[what].append(case)
    found[MISS].sort(key=lambda each: -each.size_px)
    found[FALSE].sort(key=lambda each: -(each.score or 0))
    found[HIT].sort(key=lambda each: -(each.score or 0))
    return found


def spread_evenly(found: Sequence[Case], count: int) -> list[Case]:
    """Return ``count`` of them, the first and the last included, evenly in between."""
    if len(found) <= count:
        return list(found)
    places = np.linspace(0, len(found) - 1, count).round().astype(int)
    return [found[place] for place in dict.fromkeys(places.tolist())]


def progress_of(folder: Path, metric: str) -> dict[str, list[tuple[int, float]]]:
    """Return what metrics.jsonl says over the steps: the validation metric and the total loss."""
    wanted = {f"val/{metric}": metric, "total_loss": "loss"}
    curves: dict[str, list[tuple[int, float]]] = {name: [] for name in wanted.values()}
    with contextlib.suppress(OSError), (folder / run_folder.METRICS).open("rb") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                content: Any = json.loads(line)
                if isinstance(content, dict) and isinstance(content.get("iteration"), int):
                    for key, name in wanted.items():
                        if isinstance(content.get(key), int | float):
                            curves[name].append((content["iteration"] + 1, float(content[key])))
    return {name: points for name, points in curves.items() if points}


def _passed(
    detections: dict[int, Detections], sample: Sample, threshold: float | None
) -> Detections:
    found = detections.get(sample["image_id"], Detections.none())
    return Detections.none() if threshold is None else found.above(threshold)


def _confusion(
    samples: Sequence[Sample],
    detections: dict[int, Detections],
    classes: int,
    threshold: float | None,
    match_iou: float,
) -> NDArray[np.int64]:
    """Match whatever the class, and count which class is found on which."""
    counts = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    for sample in samples:
        shown = _passed(detections, sample, threshold)
        truth = sample["annotations"]
        alike = Sample(**{**sample, "annotations": [{**each, "category_id": 0} for each in truth]})
        any_class = Detections(shown.boxes, shown.scores, np.zeros_like(shown.classes))
        matched = assign(alike, any_class, match_iou=match_iou)
        for kind, outcome in zip(shown.classes.tolist(), matched.truth_of.tolist(), strict=True):
            if outcome != ON_CROWD:
                row = classes if outcome == FALSE_ALARM else truth[outcome]["category_id"]
                counts[row, kind] += 1
        for index in matched.missed.tolist():
            counts[truth[index]["category_id"], classes] += 1
    return counts


def _noticed(
    samples: Sequence[Sample], detections: dict[int, Detections], threshold: float | None
) -> tuple[int, int]:
    hits = false_alarms = 0
    for sample in samples:
        shown = _passed(detections, sample, threshold)
        truth_of = assign(sample, shown, match_iou=SLIGHT_IOU).truth_of
        hits += int((truth_of >= 0).sum())
        false_alarms += int((truth_of == FALSE_ALARM).sum())
    return hits, false_alarms


def _doubt(run: Run, metrics: Metrics, prefix: str) -> str:
    for name in ("AP", "AP50"):
        now, then = metrics.values[name], run.result.metrics.get(f"{prefix}{name}")
        if now is None and then is None:
            continue
        if now is None or then is None or abs(now - then) > _AGREE:
            told = ("none" if each is None else f"{each:.4f}" for each in (now, then))
            return (
                "{}: detections and annotations give {} {} now, result.json says {}:"
                " they were changed since".format(run.name, name, *told)
            )
    return ""

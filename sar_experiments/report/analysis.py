"""The detections of one run against the truth: curves, sizes, confusions, what to picture."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
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
    flat,
    measure,
    measure_any_class,
    of_one_class,
    without_classes,
)
from sar_experiments.evaluate.sizes import SizeBin, by_size, size_px
from sar_experiments.report.numbers import Footing
from sar_experiments.thresholds import DEFAULT_SCORE, UNKNOWN, Thresholds, of_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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
        class_name: Of the object, and what it was called where that is another; of a false alarm,
            what it was called. Empty where a detector names none.
        size_px: Root of the box area.
    """

    kind: str
    sample: Sample
    box: tuple[float, ...]
    score: float | None
    class_name: str
    size_px: float


@dataclass(frozen=True, eq=False)
class Measured:
    """The detections of a run against the truth, on one footing.

    Attributes:
        run: Whose.
        footing: What a detection must get right.
        samples: The truth; class-agnostic, with all objects of one class.
        detections: Image id -> what was found, as many as count; likewise.
        names: Image id -> what each of these was called; None where the detector names no classes.
        metrics: Measured anew from detections.json, at the thresholds that the run recorded.
        match_iou: Overlap from which a detection is a hit.
        sizes: Smallest objects first.
        noticed: Hits and false alarms at the thresholds if an overlap of SLIGHT_IOU is enough:
            whether an object is noticed at all, however loose its box.
        found: Class name -> how many of its objects are hit, and how many there are.
    """

    run: Run
    footing: Footing
    samples: Sequence[Sample]
    detections: dict[int, Detections]
    names: Mapping[int, Sequence[str]] | None
    metrics: Metrics
    match_iou: float
    sizes: tuple[SizeBin, ...]
    noticed: tuple[int, int]
    found: Mapping[str, tuple[int, int]]

    def shown(self, sample: Sample) -> tuple[Detections, Sequence[str]]:
        """Return the detections of an image that pass the thresholds, and what they are called."""
        image = sample["image_id"]
        detections = self.detections.get(image, Detections.none())
        passed = detections.scores >= self.metrics.least[detections.classes]
        names = [""] * len(detections) if self.names is None else self.names.get(image, ())
        kept = np.flatnonzero(passed)
        return detections.select(kept), [names[index] for index in kept.tolist()]


@dataclass(frozen=True, eq=False)
class Analysis:
    """What the detections of a run say in detail.

    Attributes:
        run: Whose.
        views: Footing -> what they say on it; those on which the run has numbers.
        confusion: (classes + 1, classes + 1) counts, rows the truth, columns what was found; the
            last row false alarms, the last column misses. None for one class, and where the
            detector names none.
        doubt: One sentence where the files are not those that result.json was computed from.
    """

    run: Run
    views: Mapping[Footing, Measured]
    confusion: NDArray[np.int64] | None
    doubt: str


def analyse(
    run: Run,
    truth: Truth,
    evaluation: EvaluationConfig,
    *,
    part: str,
    edges_px: Sequence[float],
    footings: Sequence[Footing] = (Footing.per_class,),
) -> Analysis:
    """Measure a run's detections once more, in detail.

    Args:
        run: Whose.
        truth: What it was measured on.
        evaluation: How it was measured.
        part: ``val`` or ``test``.
        edges_px: Borders between size bins.
        footings: On which; a run that names no classes has nothing per class.

    Raises:
        ValueError: Its detections or thresholds are missing, broken, or of other images.
    """
    classes = truth.part.classes
    found = read_detections(run.folder / detections_file(part), classes=len(classes))
    thresholds = _thresholds(run, truth, evaluation, found if part == "val" else None)
    best = best_detections(found, evaluation.max_detections)
    views = {
        footing: _measured(run, truth, evaluation, best, thresholds, footing, edges_px)
        for footing in footings
        if footing is Footing.class_agnostic or _names_classes(run, truth)
    }
    confusion = None
    if Footing.per_class in views and len(classes) > 1:
        confusion = _confusion(views[Footing.per_class])
    prefix = "" if part == "val" else f"{part}/"
    doubts = (_doubt(view, prefix) for view in views.values())
    return Analysis(run, views, confusion, next(filter(None, doubts), ""))


def class_agnostic_numbers(
    run: Run, truth: Truth, evaluation: EvaluationConfig, *, part: str
) -> dict[str, float | None]:
    """Return what a run by an older version did not record, by the names that it would have.

    Raises:
        ValueError: As ``analyse``.
    """
    found = read_detections(run.folder / detections_file(part), classes=len(truth.part.classes))
    thresholds = _thresholds(run, truth, evaluation, found if part == "val" else None)
    metrics = measure_any_class(
        truth.part.samples, found, max_detections=evaluation.max_detections,
        match_iou=evaluation.match_iou, thresholds=thresholds,
    )  # fmt: skip
    prefix = "" if part == "val" else f"{part}/"
    named = {f"{prefix}{name}": value for name, value in flat(metrics).items()}
    return named | metrics.thresholds.as_metrics()


def _names_classes(run: Run, truth: Truth) -> bool:
    return run.names_classes or len(truth.part.classes) == 1


def _thresholds(
    run: Run,
    truth: Truth,
    evaluation: EvaluationConfig,
    found: dict[int, Detections] | None,
) -> Thresholds:
    """Return what the run recorded; what it did not is chosen on validation, or the default.

    Args:
        run: Whose.
        truth: What it was measured on.
        evaluation: How.
        found: On validation; None reads it where it is needed.
    """
    classes, validation = truth.part.classes, truth.validation
    own = classes if _names_classes(run, truth) else ()
    thresholds = of_run(run.folder, own) or Thresholds.alike(own, DEFAULT_SCORE, UNKNOWN)
    if len(classes) > 1 and thresholds.any_class is None and validation is not None:
        if found is None:
            path = run.folder / detections_file("val")
            found = read_detections(path, classes=len(classes))
        chosen = measure_any_class(
            validation.samples, found,
            max_detections=evaluation.max_detections, match_iou=evaluation.match_iou,
        )  # fmt: skip
        thresholds = replace(thresholds, any_class=chosen.thresholds.any_class)
    return thresholds.rounded(SCORE_DIGITS)


def _measured(  # noqa: PLR0913 - all that a measurement depends on
    run: Run,
    truth: Truth,
    evaluation: EvaluationConfig,
    detections: dict[int, Detections],
    thresholds: Thresholds,
    footing: Footing,
    edges_px: Sequence[float],
) -> Measured:
    samples, classes = truth.part.samples, truth.part.classes
    limit, match_iou = evaluation.max_detections, evaluation.match_iou
    names = None
    if _names_classes(run, truth):
        names = {k: [classes[i] for i in found.classes] for k, found in detections.items()}
    if footing is Footing.class_agnostic:
        metrics = measure_any_class(
            samples, detections,
            max_detections=limit, match_iou=match_iou, thresholds=thresholds,
        )  # fmt: skip
        kept: Sequence[Sample] = without_classes(samples)
        detections = of_one_class(detections)
    else:
        metrics = measure(
            samples, detections, classes,
            max_detections=limit, match_iou=match_iou, thresholds=thresholds,
        )  # fmt: skip
        kept = samples
    sizes = by_size(
        kept, detections, [each.name for each in metrics.per_class], edges_px=edges_px,
        max_detections=limit, match_iou=match_iou, threshold=metrics.least,
    )  # fmt: skip
    view = Measured(run, footing, kept, detections, names, metrics, match_iou, sizes, (0, 0), {})
    return replace(view, noticed=_noticed(view), found=_found(view, truth))


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


def cases(view: Measured, truth: Truth) -> dict[str, list[Case]]:
    """Return what to picture: misses, largest first; false alarms, most certain first; hits.

    Hits come in an order that any first few are spread evenly over the scores.
    """
    found: dict[str, list[Case]] = {MISS: [], FALSE: [], HIT: []}
    classes = truth.part.classes
    for sample, own in zip(view.samples, truth.part.samples, strict=True):
        true_names = [classes[each["category_id"]] for each in own["annotations"]]
        shown, names = view.shown(sample)
        matched = assign(sample, shown, match_iou=view.match_iou)
        for index in matched.missed:
            each, name = sample["annotations"][int(index)], true_names[int(index)]
            found[MISS].append(Case(MISS, sample, tuple(each["bbox"]), None, name, size_px(each)))
        for box, score, called, outcome in zip(
            shown.boxes.tolist(), shown.scores, names, matched.truth_of.tolist(), strict=True
        ):
            if outcome == ON_CROWD:
                continue
            what = FALSE if outcome == FALSE_ALARM else HIT
            name = called if outcome == FALSE_ALARM else _as_called(true_names[outcome], called)
            size = max(0.0, (box[2] - box[0]) * (box[3] - box[1])) ** 0.5
            found[what].append(Case(what, sample, tuple(box), float(score), name, size))
    found[MISS].sort(key=lambda each: -each.size_px)
    found[FALSE].sort(key=lambda each: -(each.score or 0))
    found[HIT].sort(key=lambda each: -(each.score or 0))
    return found


def _as_called(name: str, called: str) -> str:
    return name if called in ("", name) else f"{name}, called {called}"


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


def _confusion(view: Measured) -> NDArray[np.int64]:
    """Match class-agnostic, and count which class is found on which."""
    classes = len(view.metrics.per_class)
    counts = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    for sample, alike in zip(view.samples, without_classes(view.samples), strict=True):
        shown, _ = view.shown(sample)
        truth = sample["annotations"]
        any_class = Detections(shown.boxes, shown.scores, np.zeros_like(shown.classes))
        matched = assign(alike, any_class, match_iou=view.match_iou)
        for kind, outcome in zip(shown.classes.tolist(), matched.truth_of.tolist(), strict=True):
            if outcome != ON_CROWD:
                row = classes if outcome == FALSE_ALARM else truth[outcome]["category_id"]
                counts[row, kind] += 1
        for index in matched.missed.tolist():
            counts[truth[index]["category_id"], classes] += 1
    return counts


def _noticed(view: Measured) -> tuple[int, int]:
    hits = false_alarms = 0
    for sample in view.samples:
        shown, _ = view.shown(sample)
        truth_of = assign(sample, shown, match_iou=SLIGHT_IOU).truth_of
        hits += int((truth_of >= 0).sum())
        false_alarms += int((truth_of == FALSE_ALARM).sum())
    return hits, false_alarms


def _found(view: Measured, truth: Truth) -> dict[str, tuple[int, int]]:
    classes = truth.part.classes
    hits, objects = dict.fromkeys(classes, 0), dict.fromkeys(classes, 0)
    for sample, own in zip(view.samples, truth.part.samples, strict=True):
        hit = set(assign(sample, view.shown(sample)[0], match_iou=view.match_iou).truth_of.tolist())
        for index, each in enumerate(own["annotations"]):
            if not each["iscrowd"]:
                objects[classes[each["category_id"]]] += 1
                hits[classes[each["category_id"]]] += index in hit
    return {name: (hits[name], objects[name]) for name in classes}


def _doubt(view: Measured, prefix: str) -> str:
    for name in ("AP", "AP50"):
        recorded = f"{prefix}{view.footing.of(name)}"
        if view.footing is Footing.class_agnostic and recorded not in view.run.result.metrics:
            continue  # by an older version
        now, then = view.metrics.values[name], view.run.result.metrics.get(recorded)
        if now is None and then is None:
            continue
        if now is None or then is None or abs(now - then) > _AGREE:
            told = ("none" if each is None else f"{each:.4f}" for each in (now, then))
            return (
                "{}: detections and annotations give {} {} now, result.json says {}:"
                " they were changed since".format(view.run.name, view.footing.of(name), *told)
            )
    return ""

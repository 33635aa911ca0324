"""Detections and truth -> numbers; knows no model.

Average precision is COCO's, computed by pycocotools. Detectron2's COCOEvaluator is not used: it
needs PyTorch, keeps a cache of truths by dataset name that goes stale when the data changes, and
returns NaN where a model finds nothing.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sar_experiments.detections import Detections

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from sar_experiments.data.annotations import BoxAnnotation, Sample

ALL_AREAS, SMALL, MEDIUM, LARGE = range(4)  # pycocotools' area ranges: < 32² px, < 96² px, more
IOU_50, IOU_75 = 0, 5  # indices into its thresholds 0.50, 0.55, ..., 0.95


@dataclass(frozen=True)
class ClassMetrics:
    """Numbers of one class.

    Attributes:
        name: Class name; ``all`` for the sum over classes.
        ap: COCO AP, in [0, 1]; None without truth.
        ap50: AP at IoU 0.5, likewise.
        precision: Hits over detections at the threshold; None without detections.
        recall: Hits over truths at the threshold; None without truth.
        f1: Their harmonic mean; None without truth and detections.
        truths: Objects, crowds left out.
        detections: Detections at the threshold, those on crowds left out.
    """

    name: str
    ap: float | None
    ap50: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    truths: int
    detections: int


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision and recall over falling score thresholds.

    Attributes:
        scores: (N,) falling.
        precision: (N,) in [0, 1].
        recall: (N,) in [0, 1], rising.
    """

    scores: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Metrics:
    """What an evaluation found.

    Attributes:
        values: AP, AP50, AP75, APs, APm, APl, precision, recall, f1, threshold; in [0, 1], None
            where the data gives no meaning. The last four are at the threshold of the best F1.
        per_class: One entry per class, in order.
        curves: Class name, or ``all``, -> precision-recall curve.
        hits: True positives at the threshold.
        misses: False negatives.
        false_alarms: False positives.
    """

    values: dict[str, float | None]
    per_class: tuple[ClassMetrics, ...]
    curves: dict[str, Curve]
    hits: int
    misses: int
    false_alarms: int


@dataclass(frozen=True, eq=False)
class Assignment:
    """Which detections of one image meet which truths; indices into each.

    Attributes:
        truth_of: (D,) index of the truth that a detection hits, -1 for a false alarm, -2 where it
            lies on a crowd and does not count.
        missed: Indices of truths that no detection hits, crowds left out.
    """

    truth_of: NDArray[np.int64]
    missed: NDArray[np.int64]


FALSE_ALARM, ON_CROWD = -1, -2


def measure(
    samples: Sequence[Sample],
    detections: Mapping[int, Detections],
    classes: Sequence[str],
    *,
    max_detections: int,
    match_iou: float,
) -> Metrics:
    """Measure detections against the truth.

    Args:
        samples: The truth; every image that was looked at.
        detections: Image id -> what was found; a missing id means nothing was.
        classes: Names of the class indices.
        max_detections: Counted per image, best first.
        match_iou: Intersection over union from which a detection is a hit.

    Raises:
        ValueError: A detection belongs to no sample.
    """
    ids = {sample["image_id"] for sample in samples}
    strangers = sorted(set(detections) - ids)
    if strangers:
        msg = f"detections of image ids {strangers[:3]}, which are not among the {len(ids)} samples"
        raise ValueError(msg)
    best = best_detections(detections, max_detections)
    average = _average_precision(samples, best, classes, max_detections)
    matches = _match_all(samples, best, match_iou)
    truths = _truth_counts(samples, len(classes))
    everything = np.ones(len(matches.scores), dtype=bool)
    curves = {"all": _curve(matches, everything, int(truths.sum()))}
    for index, name in enumerate(classes):
        curves[name] = _curve(matches, matches.classes == index, int(truths[index]))
    threshold = _best_threshold(curves["all"])
    total = _at_threshold(matches, everything, int(truths.sum()), threshold)
    per_class = tuple(
        _class_metrics(name, index, average, matches, truths, threshold)
        for index, name in enumerate(classes)
    )
    values = {**average.values, **total.values(), "threshold": threshold}
    return Metrics(values, per_class, curves, total.hits, total.misses, total.false_alarms)


def assign(sample: Sample, detections: Detections, *, match_iou: float) -> Assignment:
    """Match the detections of one image to its truth, best score first, each truth once.

    A detection takes the free truth of its class that it overlaps most, if by ``match_iou`` at
    least; failing that, it is left out of the count where it lies on a crowd.
    """
    truth = sample["annotations"]
    boxes = np.asarray([each["bbox"] for each in truth], dtype=np.float64).reshape(-1, 4)
    kinds = np.asarray([each["category_id"] for each in truth], dtype=np.int64)
    crowd = np.asarray([bool(each["iscrowd"]) for each in truth], dtype=bool)
    truth_of = np.full(len(detections), FALSE_ALARM, dtype=np.int64)
    overlap = pairwise_iou(detections.boxes.astype(np.float64), boxes, crowd)
    free = ~crowd
    for index in np.argsort(-detections.scores, kind="stable"):
        same = kinds == detections.classes[index]
        candidates = np.where(same & free, overlap[index], -1.0)
        if len(candidates) and candidates.max() >= match_iou:
            truth_of[index] = int(candidates.argmax())
            free[truth_of[index]] = False
        elif bool(np.any(same & crowd & (overlap[index] >= match_iou))):
            truth_of[index] = ON_CROWD
    return Assignment(truth_of, np.flatnonzero(free))


def pairwise_iou(
    boxes: NDArray[np.float64], truth: NDArray[np.float64], crowd: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return (D, T) intersection over union; over the detection's own area for crowds, as COCO."""
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    shared = np.clip(high - low, 0.0, None).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None]
    other = (truth[:, 2:] - truth[:, :2]).prod(axis=1)[None, :]
    union: NDArray[np.float64] = np.where(crowd[None, :], area, area + other - shared)
    iou = np.zeros_like(shared)
    np.divide(shared, union, out=iou, where=union > 0)
    return np.asarray(iou, dtype=np.float64)


def flat(metrics: Metrics) -> dict[str, float | None]:
    """Return all numbers by name: those of all classes, and AP and AP50 of each."""
    named: dict[str, float | None] = dict(metrics.values)
    if len(metrics.per_class) > 1:
        for each in metrics.per_class:
            named[f"AP/{each.name}"] = each.ap
            named[f"AP50/{each.name}"] = each.ap50
    return named


def metrics_table(metrics: Metrics, classes: Sequence[str]) -> str:
    """Return a table for a terminal: one row per class, and one for all."""
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "precision", "recall", "f1"]
    width = max(5, *(len(name) for name in classes))
    # One space between: 80 columns hold it up to class names of 14 letters.
    lines = [" ".join(["class".ljust(width), *(f"{name:>5}" for name in names), "truths"])]
    rows: list[tuple[str, list[float | None], int]] = []
    if len(classes) > 1:
        for each in metrics.per_class:
            numbers = [each.ap, each.ap50, None, None, None, None]
            rows.append((each.name, [*numbers, each.precision, each.recall, each.f1], each.truths))
    truths = sum(each.truths for each in metrics.per_class)
    rows.append(("all", [metrics.values[name] for name in names], truths))
    for label, numbers, count in rows:
        cells = [_cell(number, name) for number, name in zip(numbers, names, strict=True)]
        lines.append(" ".join([label.ljust(width), *cells, f"{count:6d}"]))
    threshold = metrics.values["threshold"]
    if threshold is not None:
        lines.append(f"precision, recall and f1 at score {threshold:.3f}, where f1 is best")
    return "\n".join(lines)


def coco_results(
    detections: Mapping[int, Detections], category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Return COCO result records: xywh boxes to 0.001 px, scores to six digits.

    Args:
        detections: Image id -> what was found.
        category_ids: Ids that the classes have in a file; None counts them from 1.
    """
    return [
        {
            "image_id": image,
            "category_id": int(kind) + 1 if category_ids is None else category_ids[int(kind)],
            "bbox": [
                round(float(v), 3) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])
            ],
            "score": round(float(score), 6),
        }
        for image, found in sorted(detections.items())
        for box, score, kind in zip(found.boxes, found.scores, found.classes, strict=True)
    ]


# --- COCO's average precision --------------------------------------------------------------------


def coco_evaluation(
    samples: Sequence[Sample],
    truth: list[dict[str, Any]],
    detections: Mapping[int, Detections],
    classes: Sequence[str],
    max_detections: int,
    *,
    area_ranges_px2: list[list[float]] | None = None,
) -> COCOeval:
    """Return pycocotools' evaluation, accumulated.

    Args:
        samples: Every image that was looked at.
        truth: COCO annotations, categories counted from 1; they get new ids.
        detections: Image id -> what was found, as many as count.
        classes: Names of the class indices.
        max_detections: Counted per image, best first.
        area_ranges_px2: Lowest and highest area, both included, of the objects of each bin; None
            takes COCO's four.
    """
    records: list[dict[str, Any]] = []
    for record in coco_results(detections):
        _, _, width, height = record["bbox"]
        records.append({**record, "area": width * height, "iscrowd": 0, "id": len(records) + 1})
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        found = _coco(records, samples, classes)
        evaluation = COCOeval(_coco(truth, samples, classes), found, "bbox")
        # Its own summary reads the limit 100 alone and gives -1 for any other.
        evaluation.params.maxDets = [1, 10, max_detections]
        if area_ranges_px2 is not None:
            evaluation.params.areaRng = area_ranges_px2
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def mean_precision(precision: NDArray[np.float64]) -> float | None:
    """Return the mean over what has a truth; None where nothing has."""
    defined = precision[precision > -1]  # pycocotools marks what has no truth by -1
    return float(defined.mean()) if defined.size else None


def best_detections(
    detections: Mapping[int, Detections], max_detections: int
) -> dict[int, Detections]:
    """Return image id -> as many of its detections as count, best first."""
    return {
        image: found.select(np.argsort(-found.scores, kind="stable")[:max_detections])
        for image, found in detections.items()
    }


@dataclass(frozen=True, eq=False)
class _Average:
    values: dict[str, float | None]
    precision: NDArray[np.float64] | None  # (10 IoUs, 101 recalls, classes, 4 areas, 3 limits)

    def of_class(self, index: int, *, iou: int | None = None) -> float | None:
        if self.precision is None:
            return None
        ious = slice(None) if iou is None else iou
        return mean_precision(self.precision[ious, :, index, ALL_AREAS, -1])


def _average_precision(
    samples: Sequence[Sample],
    detections: Mapping[int, Detections],
    classes: Sequence[str],
    max_detections: int,
) -> _Average:
    records = [truth_record(s, a) for s in samples for a in s["annotations"]]
    evaluation = coco_evaluation(samples, records, detections, classes, max_detections)
    precision: NDArray[np.float64] = evaluation.eval["precision"]
    values = {
        "AP": mean_precision(precision[:, :, :, ALL_AREAS, -1]),
        "AP50": mean_precision(precision[IOU_50, :, :, ALL_AREAS, -1]),
        "AP75": mean_precision(precision[IOU_75, :, :, ALL_AREAS, -1]),
        "APs": mean_precision(precision[:, :, :, SMALL, -1]),
        "APm": mean_precision(precision[:, :, :, MEDIUM, -1]),
        "APl": mean_precision(precision[:, :, :, LARGE, -1]),
    }
    return _Average(values, precision)


def _coco(
    annotations: list[dict[str, Any]], samples: Sequence[Sample], classes: Sequence[str]
) -> COCO:
    for index, annotation in enumerate(annotations):
        annotation["id"] = index + 1  # 0 would mean "no match" to pycocotools
    dataset = COCO()
    dataset.dataset = {
        "info": {},
        "images": [
            {"id": s["image_id"], "height": s["height"], "width": s["width"]} for s in samples
        ],
        "annotations": annotations,
        "categories": [{"id": index + 1, "name": name} for index, name in enumerate(classes)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        dataset.createIndex()
    return dataset


def truth_record(sample: Sample, annotation: BoxAnnotation) -> dict[str, Any]:
    """Return an object as COCO's record: left, top, width and height in pixels, no id yet."""
    left, top, right, bottom = annotation["bbox"]
    return {
        "image_id": sample["image_id"],
        "category_id": annotation["category_id"] + 1,
        "bbox": [left, top, right - left, bottom - top],
        "area": annotation["area"],
        "iscrowd": annotation["iscrowd"],
        "id": 0,
    }


# --- Precision, recall, F1 -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Matches:
    """Every detection that counts, best score first."""

    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class _Counts:
    hits: int
    misses: int
    false_alarms: int

    def values(self) -> dict[str, float | None]:
        found, truths = self.hits + self.false_alarms, self.hits + self.misses
        both = found + truths
        return {
            "precision": self.hits / found if found else None,
            "recall": self.hits / truths if truths else None,
            "f1": 2 * self.hits / both if both else None,
        }


def _match_all(
    samples: Sequence[Sample], detections: Mapping[int, Detections], match_iou: float
) -> _Matches:
    scores, hits, kinds = [], [], []
    for sample in sorted(samples, key=lambda each: each["image_id"]):
        found = detections.get(sample["image_id"], Detections.none())
        truth_of = assign(sample, found, match_iou=match_iou).truth_of
        counts = truth_of != ON_CROWD
        scores.append(found.scores[counts])
        hits.append(truth_of[counts] >= 0)
        kinds.append(found.classes[counts])
    if not scores:
        return _Matches(np.zeros(0), np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64))
    all_scores = np.concatenate(scores).astype(np.float64)
    order = np.argsort(-all_scores, kind="stable")
    return _Matches(all_scores[order], np.concatenate(hits)[order], np.concatenate(kinds)[order])


def _curve(matches: _Matches, of_class: NDArray[np.bool_], truths: int) -> Curve:
    hits = np.cumsum(matches.hits[of_class])
    found = np.arange(1, len(hits) + 1)
    recall = hits / truths if truths else np.zeros(len(hits))
    # Equal scores pass a threshold together: only the last of them is a point of the curve.
    scores = matches.scores[of_class]
    last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
    return Curve(scores[last], (hits / found)[last], recall[last])


def _best_threshold(curve: Curve) -> float | None:
    """Return the score at which F1 is best; the highest of equals."""
    total = curve.precision + curve.recall
    if not len(total) or not total.any():
        return None
    f1 = np.divide(
        2 * curve.precision * curve.recall, total, out=np.zeros_like(total), where=total > 0
    )
    return float(curve.scores[int(f1.argmax())])


def _at_threshold(
    matches: _Matches, of_class: NDArray[np.bool_], truths: int, threshold: float | None
) -> _Counts:
    if threshold is None:
        return _Counts(0, truths, 0)
    passed = of_class & (matches.scores >= threshold)
    hits = int(matches.hits[passed].sum())
    return _Counts(hits, truths - hits, int(passed.sum()) - hits)


def _class_metrics(
    name: str,
    index: int,
    average: _Average,
    matches: _Matches,
    truths: NDArray[np.int64],
    threshold: float | None,
) -> ClassMetrics:
    counts = _at_threshold(matches, matches.classes == index, int(truths[index]), threshold)
    return ClassMetrics(
        name=name,
        ap=average.of_class(index),
        ap50=average.of_class(index, iou=IOU_50),
        truths=int(truths[index]),
        detections=counts.hits + counts.false_alarms,
        **counts.values(),
    )


def _truth_counts(samples: Iterable[Sample], classes: int) -> NDArray[np.int64]:
    kinds = [a["category_id"] for s in samples for a in s["annotations"] if not a["iscrowd"]]
    return np.bincount(np.asarray(kinds, dtype=np.int64), minlength=classes)


def _cell(number: float | None, name: str) -> str:
    width = max(5, len(name))
    return f"{'-':>{width}}" if number is None else f"{number:{width}.3f}"

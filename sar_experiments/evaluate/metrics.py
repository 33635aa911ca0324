"""Detections and truth -> numbers; knows no model.

Average precision is COCO's, computed by pycocotools. Detectron2's COCOEvaluator is not used: it
needs PyTorch, keeps a cache of truths by dataset name that goes stale when the data changes, and
returns NaN where a model finds nothing.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sar_experiments.data.annotations import Sample
from sar_experiments.detections import Detections
from sar_experiments.run_folder import ANY_CLASS
from sar_experiments.thresholds import (
    ANY_NAME,
    CHOSEN,
    CHOSEN_ANY_CLASS,
    DEFAULT_SCORE,
    UNKNOWN,
    Thresholds,
    chosen,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from sar_experiments.data.annotations import BoxAnnotation

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
        threshold: Score from which its detections count.
    """

    name: str
    ap: float | None
    ap50: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    truths: int
    detections: int
    threshold: float


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
        values: AP, AP50, AP75, APs, APm, APl, precision, recall, f1; in [0, 1], None where the
            data gives no meaning. The last three are of all classes together, the detections of
            each from its own threshold on.
        per_class: One entry per class, in order.
        curves: Class name, or ``all``, -> precision-recall curve.
        hits: True positives at the thresholds.
        misses: False negatives.
        false_alarms: False positives.
        thresholds: Score of each class; of no class where it was measured class-agnostic.
        any_class: The same class-agnostic: a detection hits any object that it overlaps enough.
            None for one class, where it would be the same.
    """

    values: dict[str, float | None]
    per_class: tuple[ClassMetrics, ...]
    curves: dict[str, Curve]
    hits: int
    misses: int
    false_alarms: int
    thresholds: Thresholds
    any_class: Metrics | None = None

    @property
    def is_any_class(self) -> bool:
        """Whether it was measured class-agnostic."""
        return not self.thresholds.per_class

    @property
    def least(self) -> NDArray[np.float32]:
        """(classes,) scores from which detections count."""
        return np.array([each.threshold for each in self.per_class], np.float32)


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
    thresholds: Thresholds | None = None,
) -> Metrics:
    """Measure detections against the truth.

    Args:
        samples: The truth; every image that was looked at.
        detections: Image id -> what was found; a missing id means nothing was.
        classes: Names of the class indices.
        max_detections: Counted per image, best first.
        match_iou: Intersection over union from which a detection is a hit.
        thresholds: Scores from which detections of each class count for precision, recall and F1.
            None chooses them here, which only validation may: on a test split the best F1 is no
            measurement. One for any class that is not among them has the default.

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
    is_chosen = thresholds is None
    if thresholds is None:
        counts = dict(zip(classes, truths.tolist(), strict=True))
        thresholds = chosen({name: _best_score(curves[name]) for name in classes}, counts)
    matches = matches.select(matches.scores >= thresholds.least[matches.classes])
    total = _counts(matches.hits, int(truths.sum()))
    per_class = tuple(
        _class_metrics(name, index, average, matches, truths, thresholds.scores[name])
        for index, name in enumerate(classes)
    )
    values = {**average.values, **total.values()}
    any_class = None
    if len(classes) > 1:
        any_class = measure_any_class(
            samples, detections, max_detections=max_detections, match_iou=match_iou,
            thresholds=None if is_chosen else thresholds,
        )  # fmt: skip
        thresholds = replace(thresholds, any_class=any_class.thresholds.any_class)
    return Metrics(
        values, per_class, curves, total.hits, total.misses, total.false_alarms, thresholds,
        any_class,
    )  # fmt: skip


def measure_any_class(
    samples: Sequence[Sample],
    detections: Mapping[int, Detections],
    *,
    max_detections: int,
    match_iou: float,
    thresholds: Thresholds | None = None,
) -> Metrics:
    """Measure as if there were one class: the footing on which any two detectors compare.

    An object that a detector gives two names has two detections, one of them a false alarm.

    Args:
        samples: As in ``measure``, likewise the rest.
        detections: Whatever their classes.
        max_detections: Counted per image, best first.
        match_iou: Intersection over union from which a detection is a hit.
        thresholds: The one for any class of these; None chooses it here, as only validation may.
    """
    metrics = measure(
        without_classes(samples), of_one_class(detections), (ANY_NAME,),
        max_detections=max_detections, match_iou=match_iou,
        thresholds=None if thresholds is None else _of_any_class(thresholds),
    )  # fmt: skip
    own = metrics.thresholds
    origin = CHOSEN_ANY_CLASS if own.origin == CHOSEN else own.origin
    return replace(metrics, thresholds=Thresholds({}, origin, own.per_class[ANY_NAME]))


def _of_any_class(thresholds: Thresholds) -> Thresholds:
    """Return the one for any class as that of the one class."""
    if thresholds.any_class is None:
        return Thresholds.alike((ANY_NAME,), DEFAULT_SCORE, UNKNOWN)
    return Thresholds({ANY_NAME: thresholds.any_class}, thresholds.origin)


def without_classes(samples: Sequence[Sample]) -> list[Sample]:
    """Return the same truth with all objects of one class."""
    return [
        Sample(**{**s, "annotations": [{**each, "category_id": 0} for each in s["annotations"]]})
        for s in samples
    ]


def of_one_class(detections: Mapping[int, Detections]) -> dict[int, Detections]:
    """Return the same detections, all of one class."""
    return {
        image: Detections(each.boxes, each.scores, np.zeros_like(each.classes))
        for image, each in detections.items()
    }


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
    """Return all numbers by name: those of all classes, and AP and AP50 of each.

    Names of class-agnostic numbers end in ANY_CLASS.
    """
    if metrics.is_any_class:
        return {f"{name}{ANY_CLASS}": value for name, value in metrics.values.items()}
    named: dict[str, float | None] = dict(metrics.values)
    if len(metrics.per_class) > 1:
        for each in metrics.per_class:
            named[f"AP/{each.name}"] = each.ap
            named[f"AP50/{each.name}"] = each.ap50
    if metrics.any_class is not None:
        named |= flat(metrics.any_class)
    return named


def metrics_table(metrics: Metrics) -> str:
    """Return a table for a terminal: a row per class, one for all, one class-agnostic."""
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "precision", "recall", "f1"]
    # One space between, and "prec.": 80 columns hold it up to class names of 12 letters.
    heads = [{"precision": "prec."}.get(name, name) for name in names] + ["score"]
    rows: list[tuple[str, list[float | None], int]] = []
    if len(metrics.per_class) > 1:
        for each in metrics.per_class:
            numbers = [each.ap, each.ap50, None, None, None, None]
            numbers += [each.precision, each.recall, each.f1, each.threshold]
            rows.append((each.name, numbers, each.truths))
    rows.append(_row_of_all(metrics, ANY_NAME if metrics.is_any_class else "all", names))
    if metrics.any_class is not None:
        rows.append(_row_of_all(metrics.any_class, ANY_NAME, names))
    width = max(5, *(len(label) for label, *_ in rows))
    lines = [" ".join(["class".ljust(width), *(f"{head:>5}" for head in heads), "truths"])]
    for label, numbers, count in rows:
        cells = [_cell(number, head) for number, head in zip(numbers, heads, strict=True)]
        lines.append(" ".join([label.ljust(width), *cells, f"{count:6d}"]))
    if rows[-1][0] == ANY_NAME:
        lines.append(
            "any class: class-agnostic, a detection hits any object that it overlaps enough"
        )
    thresholds = metrics.thresholds
    lines.append(f"precision, recall and f1 count from score on: {thresholds.origin}")
    return "\n".join([*lines, *thresholds.doubts().values()])


def _row_of_all(
    metrics: Metrics, label: str, names: Sequence[str]
) -> tuple[str, list[float | None], int]:
    per_class = metrics.per_class
    score = per_class[0].threshold if len(per_class) == 1 else None
    return (
        label,
        [*(metrics.values[name] for name in names), score],
        sum(each.truths for each in per_class),
    )


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

    def select(self, keep: NDArray[np.bool_]) -> _Matches:
        return _Matches(self.scores[keep], self.hits[keep], self.classes[keep])


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


def _best_score(curve: Curve) -> tuple[float, float] | None:
    """Return the score from which F1 is best, the highest of equals, and that F1.

    It lies halfway to the next lower score, or to 0: scores that another runtime or GPU rounds
    otherwise are not lost at it.
    """
    total = curve.precision + curve.recall
    if not len(total) or not total.any():
        return None
    f1 = np.divide(
        2 * curve.precision * curve.recall, total, out=np.zeros_like(total), where=total > 0
    )
    best = int(f1.argmax())
    score, lower = np.append(curve.scores, 0.0)[[best, best + 1]].tolist()
    between = float(np.float32((score + lower) / 2))  # as exact as scores are
    return between if between > lower else score, float(f1[best])


def _counts(hit: NDArray[np.bool_], truths: int) -> _Counts:
    """Count detections that passed, given which of them hit."""
    hits = int(hit.sum())
    return _Counts(hits, truths - hits, len(hit) - hits)


def _class_metrics(
    name: str,
    index: int,
    average: _Average,
    matches: _Matches,
    truths: NDArray[np.int64],
    threshold: float,
) -> ClassMetrics:
    counts = _counts(matches.hits[matches.classes == index], int(truths[index]))
    return ClassMetrics(
        name=name,
        ap=average.of_class(index),
        ap50=average.of_class(index, iou=IOU_50),
        truths=int(truths[index]),
        detections=counts.hits + counts.false_alarms,
        threshold=threshold,
        **counts.values(),
    )


def _truth_counts(samples: Iterable[Sample], classes: int) -> NDArray[np.int64]:
    kinds = [a["category_id"] for s in samples for a in s["annotations"] if not a["iscrowd"]]
    return np.bincount(np.asarray(kinds, dtype=np.int64), minlength=classes)


def _cell(number: float | None, name: str) -> str:
    width = max(5, len(name))
    return f"{'-':>{width}}" if number is None else f"{number:{width}.3f}"

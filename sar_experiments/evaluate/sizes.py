"""Recall and average precision by the size of objects; knows no model."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sar_experiments.detections import Detections
from sar_experiments.evaluate.metrics import (
    IOU_50,
    assign,
    best_detections,
    coco_evaluation,
    mean_precision,
    truth_record,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sar_experiments.data.annotations import BoxAnnotation, Sample


@dataclass(frozen=True)
class SizeBin:
    """Objects of one size.

    Attributes:
        low_px: Smallest root of the box area, included.
        high_px: Largest, excluded; infinite for the last bin.
        truths: Objects, crowds left out.
        hits: Of these, found at the threshold.
        ap: COCO AP; None without truth. Detections of another size count only where they hit.
        ap50: AP at IoU 0.5, likewise.
    """

    low_px: float
    high_px: float
    truths: int
    hits: int
    ap: float | None
    ap50: float | None

    @property
    def recall(self) -> float | None:
        """Return hits over truths; None without truth."""
        return self.hits / self.truths if self.truths else None


def by_size(  # noqa: PLR0913 - as ``measure``, and the bins
    samples: Sequence[Sample],
    detections: Mapping[int, Detections],
    classes: Sequence[str],
    *,
    edges_px: Sequence[float],
    max_detections: int,
    match_iou: float,
    threshold: float | NDArray[np.float32],
) -> tuple[SizeBin, ...]:
    """Measure objects of each size by themselves.

    Args:
        samples: The truth; every image that was looked at.
        detections: Image id -> what was found.
        classes: Names of the class indices.
        edges_px: Rising borders between the bins, above 0, as root of the box area.
        max_detections: Counted per image, best first.
        match_iou: Intersection over union from which a detection is a hit.
        threshold: Score from which detections count for the recall; one, or (classes,) one each.

    Returns:
        One bin more than there are edges, smallest objects first.
    """
    bounds = [0.0, *map(float, edges_px), math.inf]
    best = best_detections(detections, max_detections)
    truths, hits = _counts(samples, best, bounds, threshold=threshold, match_iou=match_iou)
    filled = [k for k, count in enumerate(truths) if count]  # each costs as much as a measurement
    ap: list[float | None] = [None] * len(truths)
    ap50 = list(ap)
    if filled:
        ranges = [[bounds[k] ** 2, float(np.nextafter(bounds[k + 1] ** 2, 0))] for k in filled]
        records = [
            {**truth_record(s, a), "area": size_px(a) ** 2}
            for s in samples
            for a in s["annotations"]
        ]
        evaluation = coco_evaluation(
            samples, records, best, classes, max_detections, area_ranges_px2=ranges
        )
        precision = evaluation.eval["precision"]
        for place, k in enumerate(filled):
            ap[k] = mean_precision(precision[:, :, :, place, -1])
            ap50[k] = mean_precision(precision[IOU_50, :, :, place, -1])
    return tuple(
        SizeBin(bounds[k], bounds[k + 1], truths[k], hits[k], ap[k], ap50[k])
        for k in range(len(truths))
    )


def size_px(annotation: BoxAnnotation) -> float:
    """Return the root of the box area, whatever area the file gives."""
    left, top, right, bottom = annotation["bbox"]
    return math.sqrt(max(0.0, right - left) * max(0.0, bottom - top))


def _counts(
    samples: Sequence[Sample],
    detections: Mapping[int, Detections],
    bounds: Sequence[float],
    *,
    threshold: float | NDArray[np.float32],
    match_iou: float,
) -> tuple[list[int], list[int]]:
    """Return how many objects there are of each size, and how many of them are found."""
    truths, hits = [0] * (len(bounds) - 1), [0] * (len(bounds) - 1)
    for sample in samples:
        found = detections.get(sample["image_id"], Detections.none())
        found = found.above(threshold)
        hit = set(assign(sample, found, match_iou=match_iou).truth_of.tolist())
        for index, each in enumerate(sample["annotations"]):
            if not each["iscrowd"]:
                place = bisect.bisect_right(bounds, size_px(each)) - 1
                truths[place] += 1
                hits[place] += index in hit
    return truths, hits

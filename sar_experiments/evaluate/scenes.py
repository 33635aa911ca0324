"""Objects of whole scenes against their truth: the same numbers as for images, at any size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sar_experiments.detections import Detections
from sar_experiments.evaluate.metrics import FALSE_ALARM, Assignment, Metrics, assign, measure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sar_experiments.data.annotations import Sample
    from sar_experiments.thresholds import Thresholds


@dataclass(frozen=True, eq=False)
class SceneMetrics:
    """What was found in scenes.

    Attributes:
        metrics: Of all scenes together.
        assignments: Image id -> which of its objects meet which truths.
    """

    metrics: Metrics
    assignments: Mapping[int, Assignment]


def measure_scenes(
    samples: Sequence[Sample],
    objects: Mapping[int, Detections],
    scored: Mapping[int, Detections],
    classes: Sequence[str],
    *,
    match_iou: float,
    thresholds: Thresholds,
) -> SceneMetrics:
    """Measure what a prediction made of whole scenes.

    Args:
        samples: The truth of each scene.
        objects: Image id -> what the prediction keeps: precision, recall and F1 are of these.
        scored: Image id -> detections down to the lowest score, merged likewise: average precision
            and the curves are of these.
        classes: Names of the class indices.
        match_iou: Intersection over union from which a detection is a hit.
        thresholds: Scores that ``objects`` are kept from.
    """
    kept, curves = (
        _measured(samples, found, classes, match_iou=match_iou, thresholds=thresholds)
        for found in (objects, scored)
    )
    assignments = {
        each["image_id"]: _assigned(each, objects[each["image_id"]], match_iou=match_iou)
        for each in samples
    }
    return SceneMetrics(_with_averages(kept, curves), assignments)


def _with_averages(kept: Metrics, curves: Metrics) -> Metrics:
    """Return counts of what is kept, averages and curves of what is scored."""
    averages = {name: value for name, value in curves.values.items() if name.startswith("AP")}
    per_class = tuple(
        replace(each, ap=other.ap, ap50=other.ap50)
        for each, other in zip(kept.per_class, curves.per_class, strict=True)
    )
    any_class = None
    if kept.any_class is not None and curves.any_class is not None:
        any_class = _with_averages(kept.any_class, curves.any_class)
    values = {**kept.values, **averages}
    return replace(
        kept, values=values, per_class=per_class, curves=curves.curves, any_class=any_class
    )


def _measured(
    samples: Sequence[Sample],
    found: Mapping[int, Detections],
    classes: Sequence[str],
    *,
    match_iou: float,
    thresholds: Thresholds,
) -> Metrics:
    """Measure scenes of any number of objects, all of which count."""
    pieces: list[Sample] = []
    detections: dict[int, Detections] = {}
    for sample in samples:
        for group in in_groups(sample, found[sample["image_id"]]):
            number = len(pieces) + 1
            pieces.append({**group.sample, "image_id": number})
            detections[number] = group.found
    most = max((len(each) for each in detections.values()), default=0)
    return measure(
        pieces,
        detections,
        classes,
        max_detections=max(1, most),
        match_iou=match_iou,
        thresholds=thresholds,
    )


def _assigned(sample: Sample, found: Detections, *, match_iou: float) -> Assignment:
    truth_of = np.full(len(found), FALSE_ALARM, np.int64)
    missed: list[int] = []
    for group in in_groups(sample, found):
        assignment = assign(group.sample, group.found, match_iou=match_iou)
        hits = assignment.truth_of >= 0
        truth_of[group.of_found] = assignment.truth_of
        truth_of[group.of_found[hits]] = group.of_truth[assignment.truth_of[hits]]
        missed += group.of_truth[assignment.missed].tolist()
    return Assignment(truth_of, np.array(sorted(missed), np.int64))


@dataclass(frozen=True, eq=False)
class Group:
    """Boxes of a scene that meet, directly or through others.

    Attributes:
        sample: Their truths.
        found: Their detections.
        of_truth: Indices of the truths in the scene.
        of_found: Indices of the detections.
    """

    sample: Sample
    found: Detections
    of_truth: NDArray[np.int64]
    of_found: NDArray[np.int64]


def in_groups(sample: Sample, found: Detections) -> list[Group]:
    """Return a scene in groups of boxes that meet, each as if it were an image.

    Only boxes that meet can match, so that the numbers are the same; a matrix of all detections
    and all truths of a large scene would not fit into memory.
    """
    truth = sample["annotations"]
    boxes = np.concatenate([found.boxes.astype(np.float64), _boxes_of(sample)])
    if not len(boxes):
        none = np.zeros(0, np.int64)
        return [Group(sample, found, none, none)]
    tree = shapely.STRtree(shapely.box(*boxes.T))
    first, second = tree.query(tree.geometries)
    meets = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(boxes),) * 2)
    count, group_of = connected_components(meets, directed=False)
    order = np.argsort(group_of, kind="stable").astype(np.int64)
    starts = np.searchsorted(group_of[order], np.arange(1, count))
    groups = []
    for members in np.split(order, starts):
        of_found, of_truth = members[members < len(found)], members[members >= len(found)]
        of_truth = of_truth - len(found)
        annotations = [truth[index] for index in of_truth.tolist()]
        piece: Sample = {**sample, "annotations": annotations}
        groups.append(Group(piece, found.select(of_found), of_truth, of_found))
    return groups


def _boxes_of(sample: Sample) -> NDArray[np.float64]:
    boxes = [each["bbox"] for each in sample["annotations"]]
    return np.asarray(boxes, np.float64).reshape(-1, 4)

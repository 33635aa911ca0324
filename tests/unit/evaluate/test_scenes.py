"""Whole scenes are measured like images, with as many objects as they have.

Numbers are those of pycocotools and of a matching by hand on the scene as one image.
"""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sar_experiments.detections import Detections
from sar_experiments.evaluate.metrics import FALSE_ALARM
from sar_experiments.evaluate.scenes import in_groups, measure_scenes
from sar_experiments.thresholds import Threshold, Thresholds

CLASSES = ("ship", "platform")


def annotated(boxes, kinds, *, crowd=(), number=1):
    return {
        "file_name": f"{number}.tif",
        "image_id": number,
        "height": 4000,
        "width": 4000,
        "scene": f"{number}",
        "annotations": [
            {
                "bbox": [float(v) for v in box],
                "bbox_mode": 0,
                "category_id": int(kind),
                "iscrowd": int(index in crowd),
                "id": index + 1,
                "area": float((box[2] - box[0]) * (box[3] - box[1])),
            }
            for index, (box, kind) in enumerate(zip(boxes, kinds, strict=True))
        ],
    }


def crowded(rng, count=600):
    """Truths side by side, detections around most of them, twice around some, and false alarms."""
    corner = rng.uniform(0, 900, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(8, 60, (count, 2))], axis=1)
    kinds = rng.integers(0, 2, count)
    found = boxes[: count * 3 // 4] + rng.normal(0, 2, (count * 3 // 4, 4))
    twice = found[:60] + 1.0
    alarms = rng.uniform(0, 900, (80, 2))
    alarms = np.concatenate([alarms, alarms + 30], axis=1)
    every = np.concatenate([found, twice, alarms])
    classes = np.concatenate([kinds[: len(found)], kinds[:60], rng.integers(0, 2, 80)])
    scores = rng.permutation(np.linspace(0.02, 0.99, len(every)))
    return annotated(boxes, kinds, crowd=range(5)), Detections.of(every, scores, classes)


def measured(samples, found, score=0.5, scored=None):
    per_class = {name: Threshold(score) for name in CLASSES}
    thresholds = Thresholds(per_class, "test", any_class=Threshold(score))
    objects = {number: each.above(score) for number, each in found.items()}
    return measure_scenes(
        samples, objects, scored or found, CLASSES, match_iou=0.5, thresholds=thresholds
    )


def of_pycocotools(sample, found, *, with_classes=True):
    """COCO's AP and AP50 of the scene as one image, all detections counted."""
    annotations = [
        {
            **each,
            "image_id": 1,
            "category_id": each["category_id"] + 1,
            "bbox": [
                each["bbox"][0],
                each["bbox"][1],
                each["bbox"][2] - each["bbox"][0],
                each["bbox"][3] - each["bbox"][1],
            ],
        }
        for each in sample["annotations"]
    ]
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": 1, "height": 4000, "width": 4000}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "ship"}, {"id": 2, "name": "platform"}],
    }
    results = [
        {
            "image_id": 1,
            "category_id": int(kind) + 1,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": float(score),
        }
        for box, score, kind in zip(found.boxes.tolist(), found.scores, found.classes, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.params.maxDets = [1, 10, 100_000]
        evaluation.params.useCats = int(with_classes)
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]
    average = lambda values: float(values[values > -1].mean())  # noqa: E731
    return average(precision[:, :, :, 0, -1]), average(precision[0, :, :, 0, -1])


def shared(a, b):
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def area(a):
    return (a[2] - a[0]) * (a[3] - a[1])


def iou(a, b):
    return shared(a, b) / (area(a) + area(b) - shared(a, b))


def hits_by_hand(sample, found):
    """Greedy matching, best score first, one truth each, crowds left out of the count."""
    truth = sample["annotations"]
    free = {index for index, each in enumerate(truth) if not each["iscrowd"]}
    hits = aside = 0
    for index in np.argsort(-found.scores, kind="stable"):
        box, kind = found.boxes[index].tolist(), found.classes[index]
        rivals = [n for n in free if truth[n]["category_id"] == kind]
        best = max(rivals, key=lambda n: iou(box, truth[n]["bbox"]), default=None)
        crowds = [each for each in truth if each["iscrowd"] and each["category_id"] == kind]
        if best is not None and iou(box, truth[best]["bbox"]) >= 0.5:
            free.discard(best)
            hits += 1
        elif any(shared(box, each["bbox"]) >= 0.5 * area(box) for each in crowds):
            aside += 1
    return hits, len(found) - hits - aside, len(free)


def test_average_precision_of_a_scene_is_cocos_with_all_detections(rng):
    sample, found = crowded(rng)
    values = measured([sample], {1: found}).metrics.values
    expected_ap, expected_ap50 = of_pycocotools(sample, found)
    assert values["AP"] == pytest.approx(expected_ap, abs=1e-4)
    assert values["AP50"] == pytest.approx(expected_ap50, abs=1e-4)
    assert 0.3 < values["AP50"] < 0.9


def test_class_agnostic_numbers_of_a_scene_are_of_what_is_kept_and_of_all_scores(rng):
    sample, found = crowded(rng)
    result = measured([sample], {1: found}, score=0.3).metrics.any_class
    assert (result.values["AP"], result.values["AP50"]) == pytest.approx(
        of_pycocotools(sample, found, with_classes=False), abs=1e-4
    )
    alike = {**sample, "annotations": [{**a, "category_id": 0} for a in sample["annotations"]]}
    kept = found.above(0.3)
    expected = hits_by_hand(alike, Detections(kept.boxes, kept.scores, kept.classes * 0))
    assert (result.hits, result.false_alarms, result.misses) == expected


def test_hits_misses_and_false_alarms_are_those_of_the_scene_as_one_image(rng):
    sample, found = crowded(rng)
    result = measured([sample], {1: found}, score=0.3)
    hits, alarms, misses = hits_by_hand(sample, found.above(0.3))
    metrics = result.metrics
    assert (metrics.hits, metrics.false_alarms, metrics.misses) == (hits, alarms, misses)
    truth_of, missed = result.assignments[1].truth_of, result.assignments[1].missed
    assert (truth_of >= 0).sum() == hits
    assert (truth_of == FALSE_ALARM).sum() == alarms
    assert len(missed) == misses
    assert not set(truth_of[truth_of >= 0]) & set(missed.tolist())


def test_more_objects_than_an_image_may_have_all_count():
    corners = np.stack(np.meshgrid(np.arange(0, 4000, 40), np.arange(0, 1200, 40)), -1)
    corners = corners.reshape(-1, 2).astype(float)
    boxes = np.concatenate([corners, corners + 20], axis=1)
    found = Detections.of(boxes, np.full(len(boxes), 0.9), np.zeros(len(boxes), int))
    values = measured([annotated(boxes, np.zeros(len(boxes), int))], {1: found}).metrics.values
    assert len(boxes) == 3000
    assert (values["AP50"], values["recall"], values["precision"]) == (1.0, 1.0, 1.0)


def test_precision_and_recall_are_of_what_is_kept_and_average_precision_of_all_scores():
    sample = annotated([(0, 0, 10, 10), (50, 0, 60, 10)], [0, 0])
    found = Detections.of([[0, 0, 10, 10], [50, 0, 60, 10]], [0.9, 0.2], [0, 0])
    values = measured([sample], {1: found}).metrics.values
    assert (values["precision"], values["recall"], values["AP50"]) == (1.0, 0.5, 1.0)


def test_scenes_do_not_share_truths():
    box = (0, 0, 10, 10)
    samples = [annotated([box], [0]), annotated([], [], number=2)]
    found = {1: Detections.none(), 2: Detections.of([box], [0.9], [0])}
    result = measured(samples, found)
    assert (result.metrics.hits, result.metrics.misses, result.metrics.false_alarms) == (0, 1, 1)
    assert result.assignments[1].missed.tolist() == [0]
    assert result.assignments[2].truth_of.tolist() == [FALSE_ALARM]


def test_an_empty_scene_without_truth_has_no_numbers():
    result = measured([annotated([], [])], {1: Detections.none()})
    assert result.metrics.values["recall"] is None
    assert result.metrics.values["AP50"] is None


def test_groups_hold_every_box_once_and_boxes_that_meet_together(rng):
    sample, found = crowded(rng, count=80)
    groups = in_groups(sample, found)
    assert sorted(i for g in groups for i in g.of_found.tolist()) == list(range(len(found)))
    assert sorted(i for g in groups for i in g.of_truth.tolist()) == list(range(80))
    group_of = {i: n for n, g in enumerate(groups) for i in g.of_truth.tolist()}
    boxes = np.array([each["bbox"] for each in sample["annotations"]])
    for one in range(80):
        for other in range(one):
            low = np.maximum(boxes[one, :2], boxes[other, :2])
            high = np.minimum(boxes[one, 2:], boxes[other, 2:])
            if (high > low).all():
                assert group_of[one] == group_of[other]

"""Objects are measured by size: every object in one bin, hits of all bins are all hits."""

import math

import numpy as np
import pytest

from sar_experiments.detections import Detections
from sar_experiments.evaluate.metrics import measure
from sar_experiments.evaluate.sizes import by_size

SIZES = (4.0, 8.0, 15.0, 16.0, 40.0)


def image(number, sizes=SIZES, crowd=()):
    annotations = [
        {
            "bbox": [60.0 * k, 0.0, 60.0 * k + size, size], "bbox_mode": 0, "category_id": 0,
            "iscrowd": int(k in crowd), "id": 10 * number + k, "area": 1.0,
        }
        for k, size in enumerate(sizes)
    ]  # fmt: skip
    return {
        "file_name": f"{number}.png", "image_id": number, "height": 60, "width": 60 * len(sizes),
        "scene": "a", "annotations": annotations,
    }  # fmt: skip


def found_in(sample, which, score=0.9):
    boxes = [sample["annotations"][k]["bbox"] for k in which]
    return Detections.of(boxes, [score] * len(boxes), [0] * len(boxes))


def sized(samples, found, *, edges=(8, 16), threshold=0.5):
    return by_size(
        samples, found, ("ship",), edges_px=edges,
        max_detections=100, match_iou=0.5, threshold=threshold,
    )  # fmt: skip


def test_every_object_is_in_one_bin_and_a_border_belongs_to_the_larger_ones():
    bins = sized([image(1)], {})
    assert [(b.low_px, b.high_px) for b in bins] == [(0, 8), (8, 16), (16, math.inf)]
    assert [b.truths for b in bins] == [1, 2, 2]
    assert [b.recall for b in bins] == [0, 0, 0]


def test_what_is_found_counts_for_its_own_size_alone():
    samples = [image(1)]
    bins = sized(samples, {1: found_in(samples[0], (1, 2, 3))})
    assert [b.hits for b in bins] == [0, 2, 1]
    assert [b.ap50 for b in bins] == pytest.approx([0, 1, 0.5], abs=0.01)
    assert [b.ap for b in bins] == pytest.approx([0, 1, 0.5], abs=0.01)


def test_sizes_go_by_the_box_whatever_area_the_file_gives():
    assert sized([image(1, sizes=(40.0,))], {})[2].truths == 1


def test_detections_below_the_threshold_and_crowds_do_not_count():
    samples = [image(1, crowd=(4,))]
    bins = sized(samples, {1: found_in(samples[0], (0, 3, 4), score=0.4)}, threshold=0.5)
    assert [b.hits for b in bins] == [0, 0, 0]
    assert bins[2].truths == 1
    assert [b.hits for b in sized(samples, {})] == [0, 0, 0]


def test_a_size_without_objects_has_no_recall_and_no_ap():
    first = sized([image(1, sizes=(40.0,))], {})[0]
    assert (first.truths, first.recall, first.ap, first.ap50) == (0, None, None, None)


def test_one_bin_for_all_is_the_measurement_itself(rng):
    samples = [image(k, sizes=tuple(rng.uniform(3, 50, 4))) for k in range(1, 8)]
    found = {}
    for sample in samples:
        boxes = [np.add(a["bbox"], rng.uniform(-2, 2, 4)) for a in sample["annotations"]]
        found[sample["image_id"]] = Detections.of(boxes, rng.uniform(0, 1, 4), [0] * 4)
    told = measure(samples, found, ("ship",), max_detections=100, match_iou=0.5)
    threshold = told.thresholds.least
    (every,) = sized(samples, found, edges=(), threshold=threshold)
    assert (every.ap, every.ap50) == (told.values["AP"], told.values["AP50"])
    assert (every.hits, every.truths) == (told.hits, told.hits + told.misses)
    several = sized(samples, found, edges=(8, 16, 32), threshold=threshold)
    assert sum(b.hits for b in several) == told.hits

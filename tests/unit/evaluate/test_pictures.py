"""Pictures of detections: hits, misses, false alarms in their colours; dark images brightened."""

import numpy as np
import pytest

from sar_experiments.detections import Detections
from sar_experiments.evaluate.pictures import (
    FALSE,
    HIT,
    LARGEST_SIDE_PX,
    MISS,
    PROPOSAL,
    TRUTH,
    proposals_on_truth,
    truth_beside_detections,
)

SIDE = 120


def sample_of(*boxes, side=SIDE):
    annotations = [
        {"bbox": list(box), "category_id": 0, "iscrowd": 0, "id": i, "bbox_mode": 0, "area": 1.0}
        for i, box in enumerate(boxes)
    ]
    return {"height": side, "width": side, "image_id": 1, "annotations": annotations}


def has(picture, colour):
    return bool((np.abs(picture.astype(int) - colour).max(axis=2) <= 3).any())


def test_hits_misses_and_false_alarms_have_their_colours():
    found = Detections.of([[20, 20, 40, 40], [90, 90, 110, 110]], [0.9, 0.8], [0, 0])
    picture = truth_beside_detections(
        np.zeros((SIDE, SIDE, 1), np.float32),
        sample_of((20, 20, 40, 40), (60, 20, 80, 40)),
        found,
        classes=["ship"],
        min_score=0.5,
        match_iou=0.5,
    )
    assert picture.shape == (SIDE, 2 * SIDE, 3)
    truth, detections = picture[:, :SIDE], picture[:, SIDE:]
    assert has(truth, TRUTH)
    assert not has(truth, HIT)
    assert all(has(detections, colour) for colour in (HIT, MISS, FALSE))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_dark_image_is_brightened_and_a_large_one_shrunk(channels):
    side = 2 * LARGEST_SIDE_PX
    picture = truth_beside_detections(
        np.full((side, side, channels), 0.05, np.float32),
        sample_of(side=side),
        Detections.none(),
        classes=["ship"],
        min_score=0.5,
        match_iou=0.5,
    )
    assert picture.shape == (LARGEST_SIDE_PX, 2 * LARGEST_SIDE_PX, 3)
    assert picture.min() > 35  # 0.05 would be 13


def test_only_the_best_proposals_are_drawn():
    boxes = np.array([[10, 10, 30, 30], [70, 70, 100, 100]], np.float32)
    image = np.zeros((SIDE, SIDE, 1), np.float32)
    picture = proposals_on_truth(image, sample_of((40, 10, 60, 30)), boxes, count=1)
    assert has(picture[:32, :32], PROPOSAL)
    assert has(picture[:32, 38:62], TRUTH)
    assert not has(picture[65:, 65:], PROPOSAL)

"""Pictures of detections beside the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sar_experiments.data.drawing import draw_box, fitted, visible
from sar_experiments.evaluate.metrics import FALSE_ALARM, ON_CROWD, assign

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sar_experiments.data.annotations import Sample
    from sar_experiments.data.drawing import Picture
    from sar_experiments.detections import Detections

# Okabe and Ito's palette, which colour-blind people can tell apart: truth, hit, miss, false alarm.
TRUTH, HIT, MISS, FALSE = (86, 180, 233), (0, 158, 115), (230, 159, 0), (213, 94, 0)
PROPOSAL = (204, 121, 167)
LARGEST_SIDE_PX = 512


def truth_beside_detections(
    image: NDArray[np.float32],
    sample: Sample,
    detections: Detections,
    *,
    classes: Sequence[str],
    min_score: float | NDArray[np.float32],
    match_iou: float,
) -> Picture:
    """Draw an image twice: with the truth, and with what was found.

    Hits are green, misses amber, false alarms red; a found box carries class and score.

    Args:
        image: (H, W, C) in [0, 1].
        sample: The truth, in pixels of a file of ``height`` by ``width``.
        detections: Likewise.
        classes: Names of the class indices.
        min_score: Detections below it are left out; one, or (classes,) one each.
        match_iou: Overlap from which a detection is a hit.

    Returns:
        (H', 2 W', 3) uint8, RGB, no side above LARGEST_SIDE_PX per half.
    """
    shown = detections.above(min_score)
    matched = assign(sample, shown, match_iou=match_iou)
    truth, scale = fitted(visible(image), LARGEST_SIDE_PX)
    found = truth.copy()
    for annotation in sample["annotations"]:
        name = classes[annotation["category_id"]]
        draw_box(truth, annotation["bbox"], TRUTH, scale=scale, label=name)
    for index in matched.missed:
        draw_box(found, sample["annotations"][int(index)]["bbox"], MISS, scale=scale)
    for box, score, kind, outcome in zip(
        shown.boxes, shown.scores, shown.classes, matched.truth_of, strict=True
    ):
        if outcome != ON_CROWD:
            colour = FALSE if outcome == FALSE_ALARM else HIT
            label = f"{classes[int(kind)]} {score:.2f}"
            draw_box(found, box.tolist(), colour, scale=scale, label=label)
    return np.concatenate([truth, found], axis=1)


def proposals_on_truth(
    image: NDArray[np.float32], sample: Sample, boxes: NDArray[np.float32], *, count: int
) -> Picture:
    """Draw the first proposals of a region proposal network, and the truth over them.

    Args:
        image: (H, W, C) in [0, 1].
        sample: The truth, in pixels of the file.
        boxes: (N, 4) likewise, best first.
        count: How many are drawn.

    Returns:
        (H', W', 3) uint8, RGB, no side above LARGEST_SIDE_PX.
    """
    picture, scale = fitted(visible(image), LARGEST_SIDE_PX)
    for box in boxes[:count].tolist():
        draw_box(picture, box, PROPOSAL, scale=scale)
    for annotation in sample["annotations"]:
        draw_box(picture, annotation["bbox"], TRUTH, scale=scale)
    return picture

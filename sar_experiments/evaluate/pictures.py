"""Pictures of detections beside the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from sar_experiments.evaluate.metrics import FALSE_ALARM, ON_CROWD, assign

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sar_experiments.data.annotations import Sample
    from sar_experiments.detections import Detections

    Picture = NDArray[np.uint8]

# Okabe and Ito's palette, which colour-blind people can tell apart: truth, hit, miss, false alarm.
TRUTH, HIT, MISS, FALSE = (86, 180, 233), (0, 158, 115), (230, 159, 0), (213, 94, 0)
LARGEST_SIDE_PX = 512


def truth_beside_detections(
    image: NDArray[np.float32],
    sample: Sample,
    detections: Detections,
    *,
    classes: Sequence[str],
    min_score: float,
    match_iou: float,
) -> Picture:
    """Draw an image twice: with the truth, and with what was found.

    Hits are green, misses amber, false alarms red; a found box carries class and score.

    Args:
        image: (H, W, C) in [0, 1]; the first channel is shown.
        sample: The truth, in pixels of a file of ``height`` by ``width``.
        detections: Likewise.
        classes: Names of the class indices.
        min_score: Detections below it are left out.
        match_iou: Overlap from which a detection is a hit.

    Returns:
        (H', 2 W', 3) uint8, RGB, no side above LARGEST_SIDE_PX per half.
    """
    shown = detections.above(min_score)
    matched = assign(sample, shown, match_iou=match_iou)
    scale = min(1.0, LARGEST_SIDE_PX / max(sample["height"], sample["width"]))
    truth, found = (_canvas(image, sample, scale) for _ in range(2))
    for annotation in sample["annotations"]:
        _draw_box(truth, annotation["bbox"], TRUTH, scale, classes[annotation["category_id"]])
    for index in matched.missed:
        _draw_box(found, sample["annotations"][int(index)]["bbox"], MISS, scale, "")
    for box, score, kind, outcome in zip(
        shown.boxes, shown.scores, shown.classes, matched.truth_of, strict=True
    ):
        if outcome != ON_CROWD:
            colour = FALSE if outcome == FALSE_ALARM else HIT
            _draw_box(found, box.tolist(), colour, scale, f"{classes[int(kind)]} {score:.2f}")
    return np.concatenate([truth, found], axis=1)


def _canvas(image: NDArray[np.float32], sample: Sample, scale: float) -> Picture:
    size = (round(sample["width"] * scale), round(sample["height"] * scale))
    gray = np.ascontiguousarray(image[:, :, 0])
    resized = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    levels = np.clip(resized * 255.0, 0, 255).astype(np.uint8)
    return np.repeat(levels[:, :, None], 3, axis=2)


def _draw_box(
    picture: Picture, box: Sequence[float], colour: tuple[int, int, int], scale: float, label: str
) -> None:
    left, top, right, bottom = (round(float(value) * scale) for value in box)
    cv2.rectangle(picture, (left, top), (right, bottom), colour, 1, cv2.LINE_AA)
    if label:
        place = (left, top - 3 if top > 12 else bottom + 10)  # noqa: PLR2004 - height of the text
        cv2.putText(picture, label, place, cv2.FONT_HERSHEY_SIMPLEX, 0.35, colour, 1, cv2.LINE_AA)

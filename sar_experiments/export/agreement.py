"""Do two runtimes of one network find the same? Detections compared one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sar_experiments.detections import Detections

BOX_TOLERANCE_PX = 0.1
SCORE_TOLERANCE = 1e-3
FROM_SCORE = 0.05
"""Detections from this score on must agree: fainter ones change with the order of sums."""


@dataclass(frozen=True)
class Agreement:
    """How well two lists of detections agree, over all images.

    Attributes:
        images: How many were compared.
        detections: Of the first runtime, from FROM_SCORE on.
        unmatched: Of either, without a partner of the same class within the tolerances.
        max_box_px: Largest difference of a side of a box between partners.
        max_score: Largest difference of scores between partners.
    """

    images: int
    detections: int
    unmatched: int
    max_box_px: float
    max_score: float

    @property
    def holds(self) -> bool:
        """Whether all have partners."""
        return self.unmatched == 0

    def sentence(self) -> str:
        """Say it in one line."""
        return (
            f"{self.detections} detections of {self.images} images compared: {self.unmatched}"
            f" without a partner; boxes differ by at most {self.max_box_px:.2g} px (allowed"
            f" {BOX_TOLERANCE_PX:g}), scores by {self.max_score:.2g} (allowed {SCORE_TOLERANCE:g})"
        )


def compare(pairs: Iterable[tuple[Detections, Detections]]) -> Agreement:
    """Compare what two runtimes found, image by image.

    A detection within SCORE_TOLERANCE of FROM_SCORE may be missing from the other list.

    Args:
        pairs: First and second runtime's detections of each image.
    """
    images = detections = unmatched = 0
    boxes, scores = [0.0], [0.0]
    for first, second in pairs:
        images += 1
        detections += int((first.scores >= FROM_SCORE).sum())
        free = np.ones(len(second), bool)
        for index in np.argsort(-first.scores, kind="stable"):
            partner = _partner(first, int(index), second, free)
            if partner is None:
                unmatched += bool(first.scores[index] >= FROM_SCORE + SCORE_TOLERANCE)
                continue
            free[partner] = False
            if first.scores[index] >= FROM_SCORE:
                boxes.append(float(np.abs(first.boxes[index] - second.boxes[partner]).max()))
                scores.append(float(np.abs(first.scores[index] - second.scores[partner])))
        unmatched += int((second.scores[free] >= FROM_SCORE + SCORE_TOLERANCE).sum())
    return Agreement(images, detections, unmatched, max(boxes), max(scores))


def _partner(
    first: Detections,
    index: int,
    second: Detections,
    free: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> int | None:
    """Return the nearest free detection of the same class within the tolerances."""
    box_px = np.abs(second.boxes - first.boxes[index]).max(axis=1, initial=0.0)
    near = free & (second.classes == first.classes[index])
    near &= np.abs(second.scores - first.scores[index]) <= SCORE_TOLERANCE
    near &= box_px <= BOX_TOLERANCE_PX
    return int(np.where(near, box_px, np.inf).argmin()) if near.any() else None

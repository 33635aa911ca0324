"""Detections: boxes, scores and classes of one image or scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, slots=True)
class Detections:
    """Boxes with scores and classes, in the pixel coordinates of one image.

    Attributes:
        boxes: (N, 4) float32, ``left, top, right, bottom`` in pixels. Continuous: an image
            of width W spans ``[0, W]``, and pixel k covers ``[k, k + 1]``.
        scores: (N,) float32 in [0, 1].
        classes: (N,) int64, indices into the dataset's ``class_names``.

    Raises:
        ValueError: The three do not belong together.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4) or not count == len(self.scores) == len(self.classes):
            msg = (
                f"boxes {self.boxes.shape}, scores {self.scores.shape}, classes"
                f" {self.classes.shape} must be (N, 4), (N,), (N,)"
            )
            raise ValueError(msg)

    @classmethod
    def of(cls, boxes: Any, scores: Any, classes: Any) -> Detections:  # noqa: ANN401 - array-likes
        """Build from anything NumPy understands, no detections (empty lists) included."""
        return cls(
            np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
            np.asarray(scores, dtype=np.float32),
            np.asarray(classes, dtype=np.int64),
        )

    @classmethod
    def none(cls) -> Detections:
        """Return the detections of an image without objects."""
        return cls.of([], [], [])

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, keep: NDArray[Any]) -> Detections:
        """Return those picked by a boolean mask or by indices, in that order."""
        return Detections(self.boxes[keep], self.scores[keep], self.classes[keep])

    def above(self, score: float | NDArray[np.float32]) -> Detections:
        """Return those whose score is at least ``score``: one number, or (classes,) one each."""
        least = np.asarray(score, dtype=np.float32)  # as scores are: equal ones must pass
        return self.select(self.scores >= (least[self.classes] if least.ndim else least))

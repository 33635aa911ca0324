"""Encoded images as pictures for people, with boxes; shared by all that shows images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from sar_experiments.data.chip import CROWD

if TYPE_CHECKING:
    from collections.abc import Sequence

Picture = NDArray[np.uint8]
"""(H, W, 3), red, green, blue."""

Colour = tuple[int, int, int]

_BRIGHTENING = 0.6  # exponent; radar images are mostly dark
_TWO_CHANNELS = 2
_RED_GREEN_BLUE = 3
_COLOURS: tuple[Colour, ...] = (
    (255, 120, 0),
    (0, 200, 255),
    (120, 255, 60),
    (255, 60, 160),
    (255, 230, 0),
    (150, 130, 255),
)
_CROWD_COLOUR: Colour = (150, 150, 150)
_LETTER_PX = 12  # height of a label
_LETTER_WIDTH_PX = 6


def visible(image: NDArray[np.float32]) -> Picture:
    """Return gray, or two or three channels as colours, brightened.

    Args:
        image: (H, W, C) in [0, 1].
    """
    channels = image.shape[2]
    if channels == _TWO_CHANNELS:
        image = np.concatenate([image, image.mean(axis=2, keepdims=True)], axis=2)
    elif channels < _RED_GREEN_BLUE:
        image = np.repeat(image, _RED_GREEN_BLUE, axis=2)
    shown = np.clip(image[:, :, :_RED_GREEN_BLUE], 0, 1) ** _BRIGHTENING
    return np.ascontiguousarray(np.round(shown * 255), dtype=np.uint8)


def fitted(picture: Picture, longest_px: int) -> tuple[Picture, float]:
    """Shrink a picture until no side is longer, and return it with the scale, at most 1."""
    scale = min(1.0, longest_px / max(picture.shape[:2]))
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    if scale == 1:
        return picture, scale
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def class_colour(kind: int) -> Colour:
    """Return the colour of a class, gray for crowds; six colours that repeat."""
    return _CROWD_COLOUR if kind == CROWD else _COLOURS[kind % len(_COLOURS)]


def draw_box(
    picture: Picture, box: Sequence[float], colour: Colour, *, scale: float = 1.0, label: str = ""
) -> None:
    """Draw a box and, above or below it, a label that stays inside the picture.

    Args:
        picture: Altered.
        box: Left, top, right, bottom in pixels before scaling.
        colour: Of lines and letters.
        scale: Of the picture to the image that the box belongs to.
        label: ASCII; other letters show as question marks.
    """
    left, top, right, bottom = (round(float(value) * scale) for value in box)
    cv2.rectangle(picture, (left, top), (right, bottom), colour, 1)
    if not label:
        return
    text = label.encode("ascii", "replace").decode()  # OpenCV's font knows no more
    place = (
        max(0, min(left, picture.shape[1] - _LETTER_WIDTH_PX * len(text))),
        top - 3 if top > _LETTER_PX else min(bottom + _LETTER_PX, picture.shape[0] - 2),
    )
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.35, colour, 1, cv2.LINE_AA)

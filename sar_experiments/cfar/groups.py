"""Pixels that stand out -> objects: grouped over small gaps, measured, boxed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Field = NDArray[np.float64]

_NEIGHBOURS = np.ones((3, 3))


@dataclass(frozen=True, eq=False, slots=True)
class Groups:
    """Groups of pixels, in reading order of their first pixels.

    Attributes:
        boxes: (N, 4) float64, ``left, top, right, bottom`` in pixels, around whole pixels.
        lengths_m: (N,) extent along the group's own main axis, in metres, one pixel included.
        peaks: (N,) largest strength of a pixel.
    """

    boxes: Field
    lengths_m: Field
    peaks: Field


def grouped(
    strength: Field,
    level_db: Field,
    *,
    pixel_m: tuple[float, float],
    gap_m: float,
    max_drop_db: float,
) -> Groups:
    """Put pixels into groups that hold a strength of 1 or more, small gaps bridged.

    Gaps are bridged between groups, never between the faint pixels of clutter around them.

    Args:
        strength: (H, W), 0 for pixels of no group; neighbours across a corner belong together.
        level_db: (H, W), brightness in decibels of intensity.
        pixel_m: Height and width of a pixel.
        gap_m: Largest width of a gap, along rows and columns.
        max_drop_db: Pixels further below the brightest of their group are sidelobes: they count
            neither for the box nor for the length.
    """
    labels, count = ndimage.label(strength > 0, _NEIGHBOURS)
    has_seed = np.zeros(count + 1, bool)
    has_seed[labels[strength >= 1]] = True
    member = has_seed[labels]
    labels, count = ndimage.label(_closed(member, pixel_m, gap_m), _NEIGHBOURS)
    if count == 0:
        return Groups(np.zeros((0, 4)), np.zeros(0), np.zeros(0))
    rows, cols = np.nonzero(member)
    index = labels[rows, cols] - 1
    order = np.argsort(index, kind="stable")
    rows, cols, index = rows[order], cols[order], index[order]
    starts = np.searchsorted(index, np.arange(count))  # every label holds a member
    level = level_db[rows, cols]
    near_peak = level >= np.maximum.reduceat(level, starts)[index] - max_drop_db
    rows, cols, index = rows[near_peak], cols[near_peak], index[near_peak]
    starts = np.searchsorted(index, np.arange(count))  # the brightest always remains

    def lowest(values: Field) -> Field:
        return np.asarray(np.minimum.reduceat(values, starts), dtype=np.float64)

    def highest(values: Field) -> Field:
        return np.asarray(np.maximum.reduceat(values, starts), dtype=np.float64)

    x, y = cols.astype(np.float64), rows.astype(np.float64)
    boxes = [lowest(x), lowest(y), highest(x) + 1, highest(y) + 1]
    along = _along_main_axis(y * pixel_m[0], x * pixel_m[1], index, starts)
    return Groups(
        boxes=np.stack(boxes, axis=1),
        lengths_m=highest(along) - lowest(along) + float(np.sqrt(np.prod(pixel_m))),
        peaks=highest(strength[rows, cols]),
    )


def _closed(member: Mask, pixel_m: tuple[float, float], gap_m: float) -> Mask:
    """Return the members and what lies between them, joined over gaps.

    A rectangle of g + 1 pixels, spread from each member up and to the left, makes neighbours of
    members with g pixels between them, and of no others.
    """
    height, width = (int(gap_m / each) + 1 for each in pixel_m)
    if (height, width) == (1, 1):
        return member
    kernel = np.ones((height, width), np.uint8)
    return np.asarray(cv2.dilate(member.astype(np.uint8), kernel, anchor=(0, 0)) > 0)


def _along_main_axis(
    y: Field, x: Field, index: NDArray[np.int64], starts: NDArray[np.int64]
) -> Field:
    """Return each pixel's position along the main axis of its group, in metres."""
    counts = np.diff(np.append(starts, len(index)))

    def mean(values: Field) -> Field:
        return np.asarray(np.add.reduceat(values, starts) / counts)

    x, y = x - mean(x)[index], y - mean(y)[index]
    angle = np.arctan2(2 * mean(x * y), mean(x * x) - mean(y * y)) / 2
    return np.asarray(x * np.cos(angle)[index] + y * np.sin(angle)[index])

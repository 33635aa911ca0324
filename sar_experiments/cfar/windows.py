"""Means and standard deviations over the ring around every pixel, masked pixels left out.

Sums over windows are differences of running sums in float64, by OpenCV's box filter: the time
does not depend on the size of the windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Field = NDArray[np.float64]
    Mask = NDArray[np.bool_]

Side = tuple[int, int]
"""Height and width of a window in pixels, both odd."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows around a pixel, in pixels.

    Attributes:
        target: Averaged before anything is decided; (1, 1) takes pixels as they are.
        guard: May hold parts of the object: left out of the background.
        background: Outer side of the ring; larger than the guard in both directions.
    """

    target: Side
    guard: Side
    background: Side


@dataclass(frozen=True, eq=False, slots=True)
class Ring:
    """What the rings around all pixels show; (H, W) each.

    Attributes:
        mean: 0 where the ring holds no pixel.
        std: With ``count - 1`` in the denominator; 0 where the ring holds fewer than two pixels.
        count: Valid pixels of the ring.
        whole: Pixels of a ring that lies inside the image as a whole.
    """

    mean: Field
    std: Field
    count: Field
    whole: int


def odd_side(metres: float, pixel_m: float) -> int:
    """Return the odd number of pixels nearest to a length, at least 1."""
    return 2 * max(0, round((metres / pixel_m - 1) / 2)) + 1


def averaged(values: Field, valid: Mask, side: Side) -> tuple[Field, Field]:
    """Return the mean over the valid pixels of each window, and which share of it they are.

    Both are 0 where there are none.

    Args:
        values: (H, W), finite.
        valid: (H, W).
        side: Of the window.
    """
    if side == (1, 1):
        return np.where(valid, values, 0.0), valid.astype(np.float64)
    count = _box_sum(valid.astype(np.float64), side).round()
    total = _box_sum(np.where(valid, values, 0.0), side)
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    return mean, count / (side[0] * side[1])


def ring(values: Field, used: Mask, windows: Windows) -> Ring:
    """Measure the ring between guard and background around every pixel.

    Args:
        values: (H, W), finite.
        used: (H, W), False for pixels that no background may hold.
        windows: Guard and background.
    """
    # Sums of squares around the middle of the data: what is subtracted below stays small.
    sample = values[:: _step(values.shape[0]), :: _step(values.shape[1])]
    middle = float(np.median(sample))
    centred = values - middle
    centred[~used] = 0.0
    count = _ring_count(used, windows)
    mean, std = _ring_sum(centred, windows), _ring_sum(np.square(centred, out=centred), windows)
    # In place from here on, as the time goes into new memory.
    mean /= np.maximum(count, 1)
    correction = np.square(mean)
    correction *= count
    std -= correction
    std /= np.maximum(count - 1, 1)
    np.sqrt(np.maximum(std, 0.0, out=std), out=std)
    mean += middle
    mean[count == 0] = 0.0
    return Ring(mean=mean, std=std, count=count, whole=_whole(windows))


def _step(length: int) -> int:
    return max(1, length // 256)


def _ring_count(used: Mask, windows: Windows) -> Field:
    if not used.all():
        return np.asarray(_ring_sum(used.astype(np.float64), windows).round())
    outer, inner = (
        np.multiply.outer(*(_covered(n, side) for n, side in zip(used.shape, each, strict=True)))
        for each in (windows.background, windows.guard)
    )
    return np.asarray(outer - inner)


def _covered(length: int, side: int) -> Field:
    """Return how many of ``length`` pixels a window around each of them covers."""
    at, reach = np.arange(length), side // 2
    return np.minimum(at + reach, length - 1) - np.maximum(at - reach, 0) + 1.0


def _whole(windows: Windows) -> int:
    return int(np.prod(windows.background) - np.prod(windows.guard))


def _ring_sum(values: Field, windows: Windows) -> Field:
    total = _box_sum(values, windows.background)
    total -= _box_sum(values, windows.guard)
    return total


def _box_sum(values: Field, side: Side) -> Field:
    height, width = side
    summed = cv2.boxFilter(
        values, cv2.CV_64F, (width, height), normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    return np.asarray(summed)

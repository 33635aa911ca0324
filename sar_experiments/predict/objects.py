"""Detections of a scene -> objects on the Earth: place, size in metres, axis if it shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from sar_experiments.geometry import Points, Window, azimuths_deg, distances_m

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sar_experiments.detections import Detections
    from sar_experiments.predict.detector import SceneHeader, Tile

_NOISE_SIGMAS = 3.0
_MAD_TO_SIGMA = 1.4826  # of a normal distribution
_PEAK_PERCENTILE = 98.0
_HALF = 0.5  # of the contrast, in decibels: below lie sidelobes and the smear of motion
_FEWEST_PIXELS = 6  # fewer have no direction
_LEAST_ELONGATION = 1.6  # below, the axis is mostly chance
_FEWEST_BACKGROUND = 16
_PIXEL_VARIANCE = 1.0 / 12.0  # a pixel is a square, not a point


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One detection with what a map needs to know.

    Attributes:
        box: ``left, top, right, bottom`` in pixels of the scene.
        score: In [0, 1].
        class_name: Of the detector.
        reason: Why it is filtered, such as ``land``; empty where it is kept.
        centre: Longitude and latitude of the box's centre, degrees; None without geo-reference.
        corners: Longitude and latitude of the box's corners, counter-clockwise on the map.
        length_m: Longer side in metres: along the axis where it can be told, else of the box;
            None without geo-reference.
        width_m: Shorter side, likewise.
        heading_deg: Axis, clockwise from north, in [0, 180): bow and stern look alike. None
            where the bright pixels are too few or too round, or without geo-reference.
    """

    box: tuple[float, float, float, float]
    score: float
    class_name: str
    reason: str = ""
    centre: tuple[float, float] | None = None
    corners: tuple[tuple[float, float], ...] | None = None
    length_m: float | None = None
    width_m: float | None = None
    heading_deg: float | None = None


@dataclass(frozen=True, slots=True)
class Axis:
    """Direction and size of the bright pixels in a box, from their second moments.

    Attributes:
        direction: Unit vector in units of ``pixel_m``: x to the right, y down.
        length: Of the uniform bar with the same moments.
        width: Of that bar.
    """

    direction: tuple[float, float]
    length: float
    width: float


def describe(
    detections: Detections,
    reasons: Sequence[str],
    classes: Sequence[str],
    header: SceneHeader,
    read: Callable[[Window], Tile],
) -> list[SceneObject]:
    """Return the objects of a scene in the order of the detections.

    Args:
        detections: In pixels of the scene.
        reasons: Why each is filtered; empty where it is kept.
        classes: Names that the detections' classes are indices of.
        header: Of the scene.
        read: Reads a window of it; called once for each object, from top to bottom.
    """
    boxes = detections.boxes.astype(np.float64)
    axes: list[Axis | None] = [None] * len(boxes)
    if header.georeference is not None:
        for index in np.lexsort((boxes[:, 0], boxes[:, 1])):
            axes[index] = _axis_in(boxes[index], header, read)
    return [
        _object(
            box,
            float(score),
            classes[int(kind)],
            reason,
            header,
            axis,
        )
        for box, score, kind, reason, axis in zip(
            boxes, detections.scores, detections.classes, reasons, axes, strict=True
        )
    ]


def bright_axis(
    levels: NDArray[np.float64], inside: NDArray[np.bool_], pixel_m: tuple[float, float]
) -> Axis | None:
    """Return the axis of the brightest patch inside a box; None where it cannot be told.

    Bright is what stands out of the surroundings by three deviations of their noise and by half
    of the object's own contrast; of several patches the one with most contrast counts.

    Args:
        levels: (H, W) in decibels or another logarithm; NaN marks no data.
        inside: (H, W), True in the box; the rest are the surroundings.
        pixel_m: Height and width of a pixel.
    """
    known = np.isfinite(levels)
    around, core = levels[~inside & known], levels[inside & known]
    if len(around) < _FEWEST_BACKGROUND:
        around = levels[known]
    if not len(core):
        return None
    sea = float(np.median(around))
    noise = _MAD_TO_SIGMA * float(np.median(np.abs(around - sea)))
    peak = float(np.percentile(core, _PEAK_PERCENTILE))
    threshold = sea + max(_NOISE_SIGMAS * noise, _HALF * (peak - sea))
    contrast = np.where(inside & (levels > threshold), levels - sea, 0.0)
    count, patches = cv2.connectedComponents((contrast > 0).astype(np.uint8), connectivity=8)
    if count == 1:  # the background alone
        return None
    strongest = 1 + int(np.argmax(np.bincount(patches.ravel(), contrast.ravel())[1:]))
    rows, cols = np.nonzero(patches == strongest)
    if len(rows) < _FEWEST_PIXELS:
        return None
    y, x = (rows * pixel_m[0]).astype(np.float64), (cols * pixel_m[1]).astype(np.float64)
    return _moments(y, x, pixel_m)


def _moments(
    y: NDArray[np.float64], x: NDArray[np.float64], pixel_m: tuple[float, float]
) -> Axis | None:
    covariance = np.cov(np.stack([x, y]), bias=True)
    covariance += np.diag([pixel_m[1] ** 2, pixel_m[0] ** 2]) * _PIXEL_VARIANCE
    values, vectors = np.linalg.eigh(covariance)  # rising
    width, length = (math.sqrt(12.0 * value) for value in values)  # of a uniform bar
    if length < _LEAST_ELONGATION * width:
        return None
    return Axis((float(vectors[0, 1]), float(vectors[1, 1])), length, width)


def _axis_in(
    box: NDArray[np.float64], header: SceneHeader, read: Callable[[Window], Tile]
) -> Axis | None:
    left, top, right, bottom = box
    margin = max(4.0, 0.5 * max(right - left, bottom - top))
    window = Window(
        math.floor(left - margin),
        math.floor(top - margin),
        math.ceil(right + margin),
        math.ceil(bottom + margin),
    ).clipped(height=header.height, width=header.width)
    if window.width == 0 or window.height == 0 or header.pixel_m is None:
        return None
    tile = read(window)
    inside = np.zeros(tile.valid.shape, bool)
    core = Window(
        max(0, math.floor(left) - window.left),
        max(0, math.floor(top) - window.top),
        max(0, math.ceil(right) - window.left),
        max(0, math.ceil(bottom) - window.top),
    )
    core.of(inside)[:] = True
    return bright_axis(_levels(tile), inside, header.pixel_m)


def _levels(tile: Tile) -> NDArray[np.float64]:
    """Return (H, W) in decibels up to a factor; negative numbers are decibels already."""
    pixels = np.where(tile.valid, tile.pixels[:, :, 0].astype(np.float64), np.nan)
    if np.nanmin(pixels, initial=0.0) < 0:
        return pixels
    return np.asarray(20.0 * np.log10(np.maximum(pixels, 1e-12)), np.float64)


def _object(
    box: NDArray[np.float64],
    score: float,
    class_name: str,
    reason: str,
    header: SceneHeader,
    axis: Axis | None,
) -> SceneObject:
    left, top, right, bottom = (float(each) for each in box)
    plain = (left, top, right, bottom)
    if header.georeference is None or header.pixel_m is None:
        return SceneObject(plain, score, class_name, reason)
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    ring = np.array([[left, top], [left, bottom], [right, bottom], [right, top]])
    sides = np.array(
        [
            [[left, middle[1]], [right, middle[1]]],
            [[middle[0], top], [middle[0], bottom]],
        ]
    )
    lengths = sorted(distances_m(header.georeference.to_lonlat(sides)).tolist())
    heading = None
    if axis is not None:
        heading = _heading(middle, axis, header)
        lengths = [axis.width, axis.length]
    lonlat = header.georeference.to_lonlat(np.concatenate([middle[None], ring]))
    centre, *corners = [(float(lon), float(lat)) for lon, lat in lonlat]
    return SceneObject(
        plain,
        score,
        class_name,
        reason,
        centre=centre,
        corners=_counter_clockwise(corners),
        length_m=lengths[1],
        width_m=lengths[0],
        heading_deg=heading,
    )


def _heading(middle: Points, axis: Axis, header: SceneHeader) -> float:
    assert header.georeference is not None
    assert header.pixel_m is not None
    # Half the length to either side, in pixels.
    step = np.array(axis.direction) * axis.length / 2 / np.array(header.pixel_m[::-1])
    ends = header.georeference.to_lonlat(np.stack([middle - step, middle + step]))
    return float(azimuths_deg(ends[None])[0] % 180.0)


def _counter_clockwise(corners: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return the ring in the order that RFC 7946 asks for; images may be mirrored on the map."""
    around = np.array(corners)
    x = (around[:, 0] - around[0, 0] + 180.0) % 360.0 - 180.0
    y = around[:, 1]
    twice_area: Any = np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
    return tuple(corners if twice_area > 0 else corners[::-1])

"""Detections of a scene -> objects on the Earth: place, size in metres, axis if it shows.

Sizes are those of the bright pixels in the box, taken from their second moments in metres at the
object. The sensor widens what it images: see ``_WIDENING``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from sar_experiments.geometry import Window, distances_m, metres_per_pixel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sar_experiments.detections import Detections
    from sar_experiments.predict.detector import SceneHeader, Tile

_NOISE_SIGMAS = 3.0
_MAD_TO_SIGMA = 1.4826  # of a normal distribution
_PEAK_PERCENTILE = 98.0
_CONTRAST_SHARE = 0.4  # in decibels: below lie sidelobes and the smear of motion
_HALF_AMPLITUDE_DB = 6.0
_FEWEST_PIXELS = 6  # fewer have no direction
_LEAST_ELONGATION = 1.6  # below, the axis is mostly chance
_FEWEST_BACKGROUND = 16
_BOX_MARGIN_PX = 1  # detectors' boxes end a pixel early or late, and a CFAR's where it gets dim
_PIXEL_VARIANCE = 1.0 / 12.0  # a pixel is a square, not a point

# By how many resolution cells an object of such a contrast looks wider than it is. Along its
# length that is about made up for by a bow that narrows and reflects little. Both as measured on
# simulated ships: python benchmarks/object_sizes.py.
_WIDENING = 1.0
_NARROWEST = 0.5  # resolution cells; below, the width is not known
_SMOOTHING = 0.5  # of a resolution cell: standard deviation of what joins speckled pixels


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
        axis_deg: Direction of the length, clockwise from true north at the object, in [0, 180):
            bow and stern look alike, so it is no heading. None where the bright pixels are too few
            or too round, or without geo-reference.
    """

    box: tuple[float, float, float, float]
    score: float
    class_name: str
    reason: str = ""
    centre: tuple[float, float] | None = None
    corners: tuple[tuple[float, float], ...] | None = None
    length_m: float | None = None
    width_m: float | None = None
    axis_deg: float | None = None


@dataclass(frozen=True, slots=True)
class Axis:
    """Direction and size of the bright pixels in a box, from their second moments.

    Attributes:
        azimuth_deg: Clockwise from north, in [0, 180).
        length_m: Of the uniform bar with the same moments.
        width_m: Of that bar, less what the sensor adds.
    """

    azimuth_deg: float
    length_m: float
    width_m: float


def describe(
    detections: Detections,
    reasons: Sequence[str],
    classes: Sequence[str],
    header: SceneHeader,
    read: Callable[[Window], Tile],
    *,
    resolution_m: float | None = None,
) -> list[SceneObject]:
    """Return the objects of a scene in the order of the detections.

    Args:
        detections: In pixels of the scene.
        reasons: Why each is filtered; empty where it is kept.
        classes: Names that the detections' classes are indices of.
        header: Of the scene.
        read: Reads a window of it; called once for each object, from top to bottom.
        resolution_m: Side of the sensor's resolution cell on the ground; None takes the header's.
            Where that does not say, widths are not corrected.
    """
    boxes = detections.boxes.astype(np.float64)
    axes: list[Axis | None] = [None] * len(boxes)
    if header.georeference is not None and len(boxes):
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        to_metres = metres_per_pixel(header.georeference, middles)
        cell_m = resolution_m or header.resolution_m
        for index in np.lexsort((boxes[:, 0], boxes[:, 1])):
            axes[index] = _axis_in(boxes[index], header, read, to_metres[index], cell_m)
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
    levels: NDArray[np.float64],
    inside: NDArray[np.bool_],
    to_metres: NDArray[np.float64],
    *,
    resolution_m: float | None = None,
) -> Axis | None:
    """Return the axis of the brightest patch inside a box; None where it cannot be told.

    Bright is what stands out of the surroundings by three deviations of their noise and by a share
    of the object's own contrast; of several patches the one with most contrast counts, and ends
    where the amplitude falls to half of its median. Smoothed over half a resolution cell (or pixel)
    before, and patches a pixel apart are one: speckle tears ships.

    Args:
        levels: (H, W) in decibels; NaN marks no data.
        inside: (H, W), True in the box; the rest are the surroundings.
        to_metres: (2, 2), a step (x, y) in pixels to metres east and north.
        resolution_m: Side of a resolution cell; None does not correct the width for it.
    """
    known = np.isfinite(levels)
    if not known.any():
        return None
    pixel_m = np.hypot(*to_metres)
    smoothing_m = _SMOOTHING * (resolution_m or float(pixel_m.max()))
    levels = _smoothed(levels, known, smoothing_m / pixel_m)
    around, core = levels[~inside & known], levels[inside & known]
    if len(around) < _FEWEST_BACKGROUND:
        around = levels[known]
    if not len(core):
        return None
    sea = float(np.median(around))
    noise = _MAD_TO_SIGMA * float(np.median(np.abs(around - sea)))
    peak = float(np.percentile(core, _PEAK_PERCENTILE))
    threshold = sea + max(_NOISE_SIGMAS * noise, _CONTRAST_SHARE * (peak - sea))
    contrast = np.where(inside & known, levels - sea, -np.inf)
    patch = _strongest_patch(contrast, above=threshold - sea)
    if patch.any():
        edge = max(_NOISE_SIGMAS * noise, float(np.median(contrast[patch])) - _HALF_AMPLITUDE_DB)
        patch = _strongest_patch(contrast, above=edge)
    rows, cols = np.nonzero(patch)
    if len(rows) < _FEWEST_PIXELS:
        return None
    return _moments(to_metres @ np.stack([cols, rows]), to_metres, resolution_m or 0.0)


def _smoothed(
    levels: NDArray[np.float64], known: NDArray[np.bool_], sigma_px: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (H, W) decibels of the amplitude, smoothed along x and y."""
    highest = levels[known].max()  # amplitudes of 1 and less do not overflow
    filled = np.where(known, levels, np.median(levels[known])) - highest
    amplitude = cv2.GaussianBlur(10.0 ** (filled / 20.0), (0, 0), sigma_px[0], sigmaY=sigma_px[1])
    return np.asarray(20.0 * np.log10(np.maximum(amplitude, 1e-12)), np.float64)


def _strongest_patch(contrast: NDArray[np.float64], *, above: float) -> NDArray[np.bool_]:
    """Return the connected pixels of most contrast; those with a pixel between count as so."""
    bright = contrast > above
    reach = np.ones((3, 3), np.uint8)
    count, patches = cv2.connectedComponents(cv2.dilate(bright.astype(np.uint8), reach))
    if count == 1:  # the background only
        return bright
    strength = np.bincount(patches[bright], contrast[bright], minlength=count)
    return np.asarray(bright & (patches == 1 + int(np.argmax(strength[1:]))))


def _moments(
    metres: NDArray[np.float64], to_metres: NDArray[np.float64], cell_m: float
) -> Axis | None:
    """Return the axis of (2, N) places, metres east and north."""
    covariance = np.cov(metres, bias=True) + _PIXEL_VARIANCE * to_metres @ to_metres.T
    values, vectors = np.linalg.eigh(covariance)  # rising
    width, length = (math.sqrt(12.0 * value) for value in values)  # of a uniform bar
    if length < _LEAST_ELONGATION * width:
        return None
    east, north = vectors[:, 1]
    azimuth = math.degrees(math.atan2(east, north)) % 180.0
    width = min(width, max(width - _WIDENING * cell_m, _NARROWEST * cell_m))
    return Axis(azimuth, length, width)


def _axis_in(
    box: NDArray[np.float64],
    header: SceneHeader,
    read: Callable[[Window], Tile],
    to_metres: NDArray[np.float64],
    resolution_m: float | None,
) -> Axis | None:
    left, top, right, bottom = box
    margin = max(4.0, 0.5 * max(right - left, bottom - top))
    window = Window(
        math.floor(left - margin),
        math.floor(top - margin),
        math.ceil(right + margin),
        math.ceil(bottom + margin),
    ).clipped(height=header.height, width=header.width)
    if window.width == 0 or window.height == 0 or not np.isfinite(to_metres).all():
        return None
    tile = read(window)
    inside = np.zeros(tile.valid.shape, bool)
    core = Window(
        max(0, math.floor(left) - _BOX_MARGIN_PX - window.left),
        max(0, math.floor(top) - _BOX_MARGIN_PX - window.top),
        max(0, math.ceil(right) + _BOX_MARGIN_PX - window.left),
        max(0, math.ceil(bottom) + _BOX_MARGIN_PX - window.top),
    )
    core.of(inside)[:] = True
    return bright_axis(_levels(tile), inside, to_metres, resolution_m=resolution_m)


def _levels(tile: Tile) -> NDArray[np.float64]:
    """Return (H, W) in decibels up to a factor; mostly negative numbers are decibels already."""
    pixels = np.where(tile.valid, tile.pixels[:, :, 0].astype(np.float64), np.nan)
    if tile.valid.any() and np.nanmedian(pixels) < 0:
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
    if header.georeference is None:
        return SceneObject(plain, score, class_name, reason)
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    ring = np.array([[left, top], [left, bottom], [right, bottom], [right, top]])
    sides = np.array(
        [
            [[left, middle[1]], [right, middle[1]]],
            [[middle[0], top], [middle[0], bottom]],
        ]
    )
    width_m, length_m = sorted(distances_m(header.georeference.to_lonlat(sides)).tolist())
    if axis is not None:
        width_m, length_m = axis.width_m, axis.length_m
    lonlat = header.georeference.to_lonlat(np.concatenate([middle[None], ring]))
    centre, *corners = [(float(lon), float(lat)) for lon, lat in lonlat]
    return SceneObject(
        plain,
        score,
        class_name,
        reason,
        centre=centre,
        corners=_counter_clockwise(corners),
        length_m=length_m,
        width_m=width_m,
        axis_deg=None if axis is None else axis.azimuth_deg,
    )


def _counter_clockwise(corners: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return the ring in the order that RFC 7946 asks for; images may be mirrored on the map."""
    around = np.array(corners)
    x = (around[:, 0] - around[0, 0] + 180.0) % 360.0 - 180.0
    y = around[:, 1]
    twice_area: Any = np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
    return tuple(corners if twice_area > 0 else corners[::-1])

"""Pictures of hits, misses and false alarms: a window of the image, boxes drawn over it as SVG."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from sar_experiments.data.drawing import fitted, visible
from sar_experiments.data.images import read_pixels
from sar_experiments.errors import SarError
from sar_experiments.evaluate.metrics import FALSE_ALARM, ON_CROWD, assign

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sar_experiments.data.annotations import Sample
    from sar_experiments.data.drawing import Picture
    from sar_experiments.data.radiometry import Radiometry
    from sar_experiments.report.analysis import Case, Measured

ZOOM = 4.0  # side of the window, in longest sides of the object
SMALLEST_PX, LARGEST_PX = 64, 256  # of the window; of the stored picture
_IMAGES_KEPT = 4


@dataclass(frozen=True)
class Box:
    """A box in a picture.

    Attributes:
        kind: ``truth``, ``hit``, ``miss`` or ``false``.
        corners: Left, top, right, bottom in pixels of the window.
        is_meant: Whether the picture is about it.
    """

    kind: str
    corners: tuple[float, ...]
    is_meant: bool


@dataclass(frozen=True)
class Crop:
    """One picture.

    Attributes:
        case: What it shows.
        png: Base64 of the pixels.
        side_px: Of the square window, in pixels of the image; what boxes count in.
        boxes: All that lie in it.
    """

    case: Case
    png: str
    side_px: float
    boxes: tuple[Box, ...]


def crops_of(
    wanted: Sequence[Case], view: Measured, radiometry: Radiometry
) -> tuple[list[Crop], list[str]]:
    """Cut the pictures of cases out of their images.

    Args:
        wanted: What to show.
        view: Whose detections they are.
        radiometry: How the run saw the images.

    Returns:
        The pictures, and one sentence per image that cannot be read.
    """
    read = lru_cache(_IMAGES_KEPT)(lambda file: _visible(file, radiometry))
    crops, faults = [], []
    for case in wanted:
        try:
            picture = read(case.sample["file_name"])
        except (SarError, OSError) as error:
            faults.append(" ".join(str(error).split()))
            continue
        crops.append(_crop(case, picture, view))
    return crops, list(dict.fromkeys(faults))


def _visible(file: str, radiometry: Radiometry) -> Picture:
    pixels, valid = read_pixels(Path(file), nodata=radiometry.nodata)
    return visible(radiometry.encode(pixels, valid=valid))


def _crop(case: Case, picture: Picture, view: Measured) -> Crop:
    left, top, right, bottom = case.box
    side = round(max(SMALLEST_PX, ZOOM * max(right - left, bottom - top)))
    height, width = picture.shape[:2]
    x, y = _start(left, right, side, width), _start(top, bottom, side, height)
    canvas = np.zeros((side, side, 3), np.uint8)  # black beyond the image
    part = picture[max(0, y) : y + side, max(0, x) : x + side]
    canvas[max(0, -y) : max(0, -y) + part.shape[0], max(0, -x) : max(0, -x) + part.shape[1]] = part
    boxes = tuple(
        Box(each.kind, moved, each.corners == case.box)
        for each in _boxes(case.sample, view)
        if _overlaps(moved := _moved(each.corners, x, y), side)
    )
    return Crop(case, _png(fitted(canvas, LARGEST_PX)[0]), float(side), boxes)


def _start(low: float, high: float, side: int, length: int) -> int:
    """Return where a window around the object begins, inside the image where it fits."""
    start = round((low + high - side) / 2)
    return (length - side) // 2 if side >= length else max(0, min(start, length - side))


def _boxes(sample: Sample, view: Measured) -> Iterator[Box]:
    shown, _ = view.shown(sample)
    matched = assign(sample, shown, match_iou=view.match_iou)
    missed = set(matched.missed.tolist())
    for index, each in enumerate(sample["annotations"]):
        yield Box("miss" if index in missed else "truth", tuple(each["bbox"]), is_meant=False)
    for box, outcome in zip(shown.boxes.tolist(), matched.truth_of.tolist(), strict=True):
        if outcome != ON_CROWD:
            yield Box("false" if outcome == FALSE_ALARM else "hit", tuple(box), is_meant=False)


def _moved(corners: tuple[float, ...], x: int, y: int) -> tuple[float, ...]:
    left, top, right, bottom = corners
    return (left - x, top - y, right - x, bottom - y)


def _overlaps(corners: tuple[float, ...], side: int) -> bool:
    left, top, right, bottom = corners
    return left < side and top < side and right > 0 and bottom > 0


def _png(picture: Picture) -> str:
    is_gray = bool((picture == picture[:, :, :1]).all())
    pixels = picture[:, :, 0] if is_gray else picture[:, :, ::-1]  # OpenCV wants blue first
    _, encoded = cv2.imencode(
        ".png", np.ascontiguousarray(pixels), [cv2.IMWRITE_PNG_COMPRESSION, 9]
    )
    return base64.b64encode(encoded.tobytes()).decode("ascii")

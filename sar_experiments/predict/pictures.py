"""Scenes with their detections as pictures: one overview per scene, a crop per object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from sar_experiments.data.images import write_image
from sar_experiments.geometry import Window
from sar_experiments.predict.outputs import COLOURS, OUTCOME_COLOURS, OUTCOME_NAMES
from sar_experiments.predict.scene import Scene
from sar_experiments.predict.sources import SceneFiles

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sar_experiments.config import PredictConfig
    from sar_experiments.predict.objects import SceneObject
    from sar_experiments.predict.outputs import Outcome
    from sar_experiments.predict.runner import ScenePrediction

Picture = NDArray[np.uint8]

FILTERED_COLOUR = (255, 225, 25)
_LARGEST_ZOOM = 3  # of scenes smaller than the picture
_STRETCH = (1.0, 99.7)  # percentiles of the overview that become black and white
_LABEL_ZOOM = 0.75  # screen pixels per scene pixel from which scores can be read
_GAP_PX = 2  # between an object and its frame
_MANY = 3  # classes from which colours need names


def write_pictures(
    prediction: ScenePrediction,
    folder: Path,
    settings: PredictConfig,
    *,
    nodata: float | None = None,
) -> None:
    """Write overview/SCENE.png and crops/SCENE/….png, where they are asked for.

    Args:
        prediction: Of the scene, which is read again.
        folder: Run folder.
        settings: Which pictures, and how large.
        nodata: What the detector's radiometry calls no data, besides the file's own mark.

    Raises:
        SceneError: The scene can no longer be read.
        OSError: A picture cannot be written.
    """
    header = prediction.header
    source = SceneFiles(header.name, header.files, ())
    scene = Scene(source, bands=settings.bands, nodata=nodata)
    try:
        pixels, valid = scene.read_overview(longest_px=settings.overview_px)
        low, high = _stretch(pixels, valid)
        if "overview" in settings.outputs:
            picture = draw_overview(_gray(pixels, valid, low, high), prediction, settings)
            _write(folder / "overview" / f"{header.name}.png", picture)
        if settings.crop_px:
            for number, each in enumerate(prediction.objects, start=1):
                window = _around(each, settings.crop_px).clipped(
                    height=header.height, width=header.width
                )
                tile = scene.read(window)
                crop = _gray(tile.pixels[:, :, 0].astype(np.float32), tile.valid, low, high)
                name = f"{number:05d}_{each.class_name}_{each.score:.2f}.png"
                _write(folder / "crops" / header.name / name, crop)
    finally:
        scene.close()


def gray_overview(scene: Scene, *, longest_px: int) -> Picture:
    """Return (H, W): a scene scaled down so that no side is longer, stretched to be looked at."""
    pixels, valid = scene.read_overview(longest_px=longest_px)
    return _gray(pixels, valid, *_stretch(pixels, valid))


def draw_overview(gray: Picture, prediction: ScenePrediction, settings: PredictConfig) -> Picture:
    """Return (H, W, 3): kept detections in the colour of their class, filtered ones in yellow.

    Args:
        gray: (H, W) the scene, scaled down or as it is.
        prediction: Of that scene.
        settings: Of the prediction.
    """
    picture = _enlarged(gray, settings)
    scale = picture.shape[1] / prediction.header.width
    for each in prediction.filtered:
        _frame(picture, each, FILTERED_COLOUR, scale, "")
    for each in reversed(prediction.objects):  # the best on top
        number = prediction.classes.index(each.class_name)
        label = f"{each.score:.2f}" if scale >= _LABEL_ZOOM else ""
        if label and len(prediction.classes) >= _MANY:
            label = f"{each.class_name} {label}"
        _frame(picture, each, COLOURS[number % len(COLOURS)], scale, label)
    return picture


def draw_outcomes(
    gray: Picture, outcomes: Sequence[Outcome], settings: PredictConfig, *, width: int
) -> Picture:
    """Return (H, W, 3): hits green, false alarms red, misses yellow, what counts aside gray.

    Args:
        gray: (H, W) the scene, scaled down or as it is.
        outcomes: Of that scene.
        settings: Of the prediction.
        width: Of the scene, in its own pixels.
    """
    picture = _enlarged(gray, settings)
    scale = picture.shape[1] / width
    for each, _, outcome in outcomes:
        label = f"{each.score:.2f}" if scale >= _LABEL_ZOOM and outcome != "miss" else ""
        _frame(picture, each, OUTCOME_COLOURS[OUTCOME_NAMES.index(outcome)], scale, label)
    return picture


def _enlarged(gray: Picture, settings: PredictConfig) -> Picture:
    """Return (H, W, 3): small scenes larger, so that frames and scores can be told."""
    zoom = max(1, min(_LARGEST_ZOOM, settings.overview_px // max(gray.shape)))
    large = cv2.resize(gray, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST)
    return np.repeat(np.asarray(large, np.uint8)[:, :, None], 3, axis=2)


def _stretch(pixels: NDArray[np.float32], valid: NDArray[np.bool_]) -> tuple[float, float]:
    if not valid.any():
        return 0.0, 1.0
    low, high = np.percentile(pixels[valid], _STRETCH)
    return float(low), float(max(high, low + 1e-6))


def _gray(
    pixels: NDArray[np.float32], valid: NDArray[np.bool_], low: float, high: float
) -> Picture:
    levels = np.clip((np.where(valid, pixels, low) - low) / (high - low), 0, 1)
    return np.asarray(levels * 255, np.uint8)


def _frame(
    picture: Picture, each: SceneObject, colour: tuple[int, int, int], scale: float, label: str
) -> None:
    left, top, right, bottom = (round(value * scale) for value in each.box)
    start, end = (left - _GAP_PX, top - _GAP_PX), (right + _GAP_PX, bottom + _GAP_PX)
    cv2.rectangle(picture, start, end, colour, 1)
    if label:
        place = (end[0] + 1, start[1] + 3)
        cv2.putText(picture, label, place, cv2.FONT_HERSHEY_SIMPLEX, 0.33, colour, 1, cv2.LINE_AA)


def _around(each: SceneObject, side_px: int) -> Window:
    left, top, right, bottom = each.box
    x, y = round((left + right - side_px) / 2), round((top + bottom - side_px) / 2)
    return Window(x, y, x + side_px, y + side_px)


def _write(path: Path, picture: Sequence[object] | Picture) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.asarray(picture))

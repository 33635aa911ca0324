"""A picture of what training sees: one look tells whether the augmentations are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from sar_experiments.data.augment import Augmentation, ClassAware, Pipeline, alone
from sar_experiments.data.chip import Chip
from sar_experiments.data.drawing import Picture, class_colour, visible
from sar_experiments.data.images import write_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sar_experiments.data.annotations import Sample
    from sar_experiments.data.mapper import SarMapper

LABEL_PX = 190
_LINE_PX = 18
_CAPTION_PX = 20
_GAP_PX = 6
_CHARACTERS = 24  # of a line of the label column

_ZOOM = 3.0  # sides of the zoomed window, in longest sides of the object
_SMALLEST_WINDOW_PX = 48
_PAPER, _INK = 250, (30, 30, 30)


@dataclass(frozen=True)
class _Row:
    label: str
    samples: Sequence[Sample]
    augmentation: Augmentation
    kind: int | None = None
    """The class that the row is about: which object is zoomed to, and other draws."""


def contact_sheet(  # noqa: PLR0913 - what to show, where, and how large
    samples: Sequence[Sample],
    mapper: SarMapper,
    classes: Sequence[str],
    path: Path,
    *,
    seed: int = 1,
    columns: int = 4,
    tile_px: int = 240,
) -> Path:
    """Write a picture of augmented training images with their boxes, whole or not at all.

    The first row is without augmentation, the next ones show each transform alone, applied to
    every chip, the last ones all of them together, on images of each class. Each chip is shown
    whole and zoomed to one of its objects.

    Args:
        samples: The training set, not empty.
        mapper: With ``is_train=True``.
        classes: Names of the classes.
        path: PNG file; its folder must exist.
        seed: Of the choice of samples and of all augmentations.
        columns: Samples of a row.
        tile_px: Side of a shown image.

    Returns:
        ``path``.

    Raises:
        ValueError: The mapper does not augment, or there are no samples.
        DatasetError: A sample cannot be read.
    """
    augmentation = mapper.augmentation
    if augmentation is None or not samples:
        msg = f"is_train={mapper.is_train} must be True, and samples ({len(samples)}) 1 or more"
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    shuffled = [samples[index] for index in rng.permutation(len(samples))]
    rows = [
        _row(each, mapper, seed=seed, columns=columns, tile_px=tile_px)
        for each in _rows(shuffled, augmentation, classes, columns)
    ]
    sheet = np.concatenate([_legend(classes, rows[0].shape[1]), *rows])
    write_image(path, sheet)
    return path


def _rows(
    samples: Sequence[Sample], augmentation: Augmentation, classes: Sequence[str], columns: int
) -> Iterator[_Row]:
    some = _with_objects(samples)[:columns]
    plain = augmentation.plain if isinstance(augmentation, ClassAware) else augmentation
    yield _Row("as it is", some, Pipeline({}, plain.min_visible_share))
    for name in plain.steps:
        yield _Row(name, some, alone(plain, name))
    if isinstance(augmentation, ClassAware):
        for index, policy in augmentation.policies.items():
            of_class = _with_class(samples, index)[:columns]
            new = [name for name in policy.steps if not _is_same(name, policy, plain)]
            for name in new:
                yield _Row(f"{classes[index]}: {name}", of_class, alone(policy, name), index)
    for index, name in enumerate(classes):
        yield _Row(f"all, on {name}", _with_class(samples, index)[:columns], augmentation, index)
    empty = [sample for sample in samples if not sample["annotations"]]
    if empty:
        yield _Row("all, without objects", empty[:columns], augmentation)


def _is_same(name: str, policy: Pipeline, plain: Pipeline) -> bool:
    return name in plain.steps and repr(policy.steps[name]) == repr(plain.steps[name])


def _with_objects(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples, those with objects first."""
    return sorted(samples, key=lambda sample: not sample["annotations"])


def _with_class(samples: Sequence[Sample], index: int) -> list[Sample]:
    return [
        sample
        for sample in samples
        if any(each["category_id"] == index for each in sample["annotations"])
    ]


def _row(row: _Row, mapper: SarMapper, *, seed: int, columns: int, tile_px: int) -> Picture:
    height = tile_px + _CAPTION_PX + _GAP_PX
    canvas = _paper(height, LABEL_PX + columns * (2 * tile_px + 2 * _GAP_PX))
    text = row.label if row.samples else f"{row.label}: no such image"
    for line, start in enumerate(range(0, len(text), _CHARACTERS)):
        _write(canvas, text[start : start + _CHARACTERS], 6, (line + 1) * _LINE_PX)
    stream = 0 if row.kind is None else row.kind + 1
    for column, sample in enumerate(row.samples):
        rng = np.random.default_rng([seed, column, stream])
        chip = mapper.chip(sample, rng, augmentation=row.augmentation)
        left = LABEL_PX + column * (2 * tile_px + 2 * _GAP_PX)
        for offset, window in ((0, _whole(chip)), (tile_px + 1, _window_of_object(chip, row.kind))):
            tile = _tile(chip, window, tile_px)
            canvas[:tile_px, left + offset : left + offset + tile_px] = tile
        height_px, width_px = chip.image.shape[:2]
        caption = f"{width_px} x {height_px} px, boxes: {len(chip)}"
        _write(canvas, caption, left, tile_px + _CAPTION_PX - 5)
    return canvas


def _whole(chip: Chip) -> tuple[float, float, float]:
    """Return left, top and side of a square window that holds the image."""
    height, width = chip.image.shape[:2]
    side = max(height, width)
    return (width - side) / 2, (height - side) / 2, side


def _window_of_object(chip: Chip, kind: int | None) -> tuple[float, float, float]:
    """Return left, top and side of a square window around the largest object, of a class."""
    boxes = chip.boxes if kind is None else chip.boxes[chip.classes == kind]
    if len(boxes) == 0:
        return _whole(chip)
    box = boxes[(boxes[:, 2:] - boxes[:, :2]).prod(axis=1).argmax()]
    side = max(_ZOOM * float((box[2:] - box[:2]).max()), _SMALLEST_WINDOW_PX)
    left, top = (box[:2] + box[2:]) / 2 - side / 2
    return float(left), float(top), side


def _tile(chip: Chip, window: tuple[float, float, float], tile_px: int) -> Picture:
    """Draw a window of a chip with outlines and boxes; beyond the image it is gray."""
    left, top, side = window
    scale = tile_px / side
    shown = visible(chip.image)
    move = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    # Of pixels where they are enlarged, so that they can be counted; else averaged.
    method = cv2.INTER_NEAREST
    if scale < 1:
        shown, move = _shrunk(shown, scale), np.array([[1, 0, -left * scale], [0, 1, -top * scale]])
    # OpenCV's pixel centres lie at whole numbers.
    move[:, 2] += (move[0, 0] - 1) / 2
    tile = cv2.warpAffine(shown, move, (tile_px, tile_px), flags=method, borderValue=(90, 90, 90))
    for index, (box, kind) in enumerate(zip(chip.boxes, chip.classes, strict=True)):
        colour = class_colour(int(kind))
        corners = np.round((box.reshape(2, 2) - (left, top)) * scale).astype(int)
        cv2.rectangle(tile, corners[0].tolist(), corners[1].tolist(), colour, 1)
        for polygon in chip.outlines[index] if chip.outlines is not None else ():
            points = np.round((polygon - (left, top)) * scale).astype(np.int32)
            cv2.polylines(tile, [points], isClosed=True, color=(255, 255, 255), thickness=1)
    return np.asarray(tile, np.uint8)


def _shrunk(shown: Picture, scale: float) -> Picture:
    height, width = shown.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(shown, size, interpolation=cv2.INTER_AREA), np.uint8)


def _legend(classes: Sequence[str], width: int) -> Picture:
    canvas = _paper(_LINE_PX + _GAP_PX, width)
    left = LABEL_PX
    for index, name in enumerate(classes):
        cv2.rectangle(canvas, (left, 5), (left + 12, 17), class_colour(index), -1)
        _write(canvas, name, left + 18, 16)
        left += 40 + 9 * len(name)
    return canvas


def _paper(height: int, width: int) -> Picture:
    return np.full((height, width, 3), _PAPER, np.uint8)


def _write(canvas: Picture, text: str, left: int, baseline: int) -> None:
    plain = text.encode("ascii", "replace").decode()  # OpenCV's font knows no more
    cv2.putText(
        canvas, plain, (left, baseline), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA
    )

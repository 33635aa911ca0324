"""Chip: one image with its objects, and the one rule for objects at its border.

Every transform ends in ``settled``: boxes are clipped to the image, and an object is dropped
together with its class and outline when

* less than ``min_visible_share`` of its original box area is left, summed up over all
  transforms, or
* a side of what is left is shorter than one pixel.

A box that is mapped to a rectangle stays the annotated one. After any other mapping, a
rotation, it is drawn anew around the outline where there is one that belongs to the box; else
around the box's corners, or around the ellipse in the box where the transform asks for that.
An outline that is somewhere else than its box, of an older crop of the image perhaps, moves with
the image and never changes the box.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
"""(H, W, C) in [0, 1]."""

Points = NDArray[np.float64]
"""(..., 2): x, y in pixels. Continuous: pixel k covers ``[k, k + 1]``."""

Outline = tuple[Points, ...]
"""The polygons of one object, (K, 2) each; several where something hides its middle."""

CROWD = -1
"""Class of a region of objects that nobody told apart: moved with the image, never learnt."""

SHORTEST_SIDE_PX = 1.0
"""A box with a shorter side is dropped."""

OUTLINE_TOLERANCE_PX = 1.5
"""An outline may end this far from a side of its box: tools round, some count pixels."""
OUTLINE_TOLERANCE = 0.05
"""Likewise, as a share of the box's width or height: outlines are drawn by hand."""

_RECTANGLE_TOLERANCE_PX = 1e-2
_ROUNDING = 1e-6
_ELLIPSE_POINTS = 32  # a multiple of 4, so that the ellipse touches all sides of its box
_CORNERS = 4
_TRIANGLE = 3


@dataclass(frozen=True, eq=False, slots=True)
class Chip:
    """One image with its objects.

    Attributes:
        image: (H, W, C) float32 in [0, 1].
        boxes: (N, 4) float64, ``left, top, right, bottom`` in pixels, as in ``Detections``.
        classes: (N,) int64, indices of classes, or CROWD.
        outlines: One per object, or None where an object of this image has none.
        visible: (N,) float64 in [0, 1], share of the original box area that is left.
        follows: (N,) bool, whether the box follows the outline where it is cut or turned: its
            object has an outline, and that belongs to the box.
    """

    image: Image
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    outlines: tuple[Outline, ...] | None
    visible: NDArray[np.float64]
    follows: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        image: Image,
        boxes: object = (),
        classes: object = (),
        outlines: tuple[Outline, ...] | None = None,
    ) -> Chip:
        """Build from anything NumPy understands; no objects by default."""
        four = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        kinds = np.asarray(classes, dtype=np.int64).reshape(-1)
        height, width = image.shape[:2]
        follows = [
            outline_belongs(box, outline, height=height, width=width)
            for box, outline in zip(four, outlines or ((),) * len(four), strict=True)
        ]
        return cls(image, four, kinds, outlines, np.ones(len(four)), np.array(follows, bool))

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, keep: NDArray[np.bool_]) -> Chip:
        """Return the chip with the objects that a boolean mask picks."""
        outlines = self.outlines
        if outlines is not None:
            outlines = tuple(each for each, kept in zip(outlines, keep, strict=True) if kept)
        return Chip(
            self.image,
            self.boxes[keep],
            self.classes[keep],
            outlines,
            self.visible[keep],
            self.follows[keep],
        )


def outline_belongs(box: NDArray[np.float64], outline: Outline, *, height: int, width: int) -> bool:
    """Tell whether an outline ends where its box does, inside the image.

    Beyond the image the two may differ: many tools clip one of them.

    Args:
        box: (4,) left, top, right, bottom in pixels.
        outline: Polygons; none belongs to no box.
        height: Of the image.
        width: Likewise.
    """
    if not outline:
        return False
    limits = [width, height, width, height]
    around = np.clip(_hulls(np.concatenate(outline)[None])[0], 0, limits)
    inside = np.clip(box, 0, limits)
    sides = np.tile(inside[2:] - inside[:2], 2)
    allowed = np.maximum(OUTLINE_TOLERANCE_PX, OUTLINE_TOLERANCE * sides)
    return bool((np.abs(around - inside) <= allowed).all())


def settled(chip: Chip, *, min_visible_share: float) -> Chip:
    """Clip objects to the image and drop those of which too little is left.

    Args:
        chip: Its boxes and outlines may reach beyond the image.
        min_visible_share: Of the original box area, in [0, 1].
    """
    height, width = chip.image.shape[:2]
    clipped = np.clip(chip.boxes, 0, [width, height, width, height])
    area = box_areas(chip.boxes)
    share = np.divide(box_areas(clipped), area, out=np.zeros_like(area), where=area > 0)
    is_cut = share < 1 - _ROUNDING
    if is_cut.any() and chip.outlines is not None:
        chip = replace(chip, outlines=_clipped_outlines(chip.outlines, is_cut, height, width))
        clipped = _tightened(clipped, chip.outlines, is_cut & chip.follows)
    visible = chip.visible * np.minimum(share, 1)
    sides = clipped[:, 2:] - clipped[:, :2]
    keep = visible >= min_visible_share - _ROUNDING
    keep &= (sides >= SHORTEST_SIDE_PX - _ROUNDING).all(axis=1)
    return replace(chip, boxes=clipped, visible=visible).select(keep)


def resized(chip: Chip, *, height: int, width: int) -> Chip:
    """Resize the image and everything in it.

    Averages areas when shrinking, as single pixels of speckle would alias, and interpolates
    linearly when enlarging. Channel by channel: OpenCV refuses more than four, and rounds two
    differently from one.
    """
    old_height, old_width, channels = chip.image.shape
    if (old_height, old_width) == (height, width):
        return chip
    method = cv2.INTER_AREA if height < old_height else cv2.INTER_LINEAR
    image = np.empty((height, width, channels), np.float32)
    for channel in range(channels):
        plane = np.ascontiguousarray(chip.image[:, :, channel])
        image[:, :, channel] = cv2.resize(plane, (width, height), interpolation=method)
    scale = np.array([width / old_width, height / old_height])
    outlines = chip.outlines
    if outlines is not None:
        outlines = tuple(tuple(polygon * scale for polygon in each) for each in outlines)
    return replace(chip, image=image, boxes=chip.boxes * np.tile(scale, 2), outlines=outlines)


def shifted(chip: Chip, *, left: float, top: float) -> Chip:
    """Move the objects, not the image, by pixels to the right and down."""
    offset = np.array([left, top])
    outlines = chip.outlines
    if outlines is not None:
        outlines = tuple(tuple(polygon + offset for polygon in each) for each in outlines)
    return replace(chip, boxes=chip.boxes + np.tile(offset, 2), outlines=outlines)


def marks(chip: Chip) -> Points:
    """Return the points that describe all objects, (P, 2), to be moved by a transform."""
    parts = [_box_marks(chip.boxes).reshape(-1, 2)]
    parts += [polygon for outline in chip.outlines or () for polygon in outline]
    return np.concatenate(parts)


def with_marks(chip: Chip, image: Image, moved: Points, *, as_ellipse: bool) -> Chip:
    """Return the chip after a transform, not settled yet.

    Args:
        chip: Before the transform.
        image: After it.
        moved: ``marks(chip)`` after it.
        as_ellipse: Draw a turned box without outline around the ellipse in it instead of its
            corners: unbiased for a ship, which fills the middle of its box.
    """
    count = len(chip) * (_CORNERS + _ELLIPSE_POINTS)
    of_boxes = moved[:count].reshape(len(chip), _CORNERS + _ELLIPSE_POINTS, 2)
    corners, ellipses = of_boxes[:, :_CORNERS], of_boxes[:, _CORNERS:]
    outlines = _regrouped(chip.outlines, moved[count:])
    boxes = _hulls(corners)
    is_turned = ~_are_rectangles(corners, boxes)
    if as_ellipse:
        boxes[is_turned] = _hulls(ellipses)[is_turned]
    for index in np.flatnonzero(is_turned & chip.follows):
        assert outlines is not None
        boxes[index] = _hulls(np.concatenate(outlines[index])[None])[0]
    return replace(chip, image=image, boxes=boxes, outlines=outlines)


def box_areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the areas in square pixels, 0 for boxes turned inside out."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return np.asarray(sides[:, 0] * sides[:, 1])


def _box_marks(boxes: NDArray[np.float64]) -> Points:
    """Return corners and ellipse points, (N, 4 + 32, 2)."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, _CORNERS, 2)
    angles = np.arange(_ELLIPSE_POINTS) * (2 * np.pi / _ELLIPSE_POINTS)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    centres = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    radii = (boxes[:, None, 2:] - boxes[:, None, :2]) / 2
    return np.concatenate([corners, centres + radii * circle], axis=1)


def _hulls(points: Points) -> NDArray[np.float64]:
    """Return the boxes around points, (N, K, 2) -> (N, 4)."""
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


def _are_rectangles(corners: Points, hulls: NDArray[np.float64]) -> NDArray[np.bool_]:
    to_low = np.abs(corners - hulls[:, None, :2])
    to_high = np.abs(corners - hulls[:, None, 2:])
    return np.asarray((np.minimum(to_low, to_high) < _RECTANGLE_TOLERANCE_PX).all(axis=(1, 2)))


def _regrouped(outlines: tuple[Outline, ...] | None, points: Points) -> tuple[Outline, ...] | None:
    """Cut a flat list of points into polygons as in ``outlines``."""
    if outlines is None:
        return None
    sizes = [len(polygon) for outline in outlines for polygon in outline]
    polygons = iter(np.split(points, np.cumsum(sizes)[:-1])) if sizes else iter(())
    return tuple(tuple(next(polygons) for _ in outline) for outline in outlines)


def _clipped_outlines(
    outlines: tuple[Outline, ...], is_cut: NDArray[np.bool_], height: int, width: int
) -> tuple[Outline, ...]:
    return tuple(
        _clipped_outline(outline, height, width) if cut else outline
        for outline, cut in zip(outlines, is_cut, strict=True)
    )


def _clipped_outline(outline: Outline, height: int, width: int) -> Outline:
    clipped = (_clipped_polygon(polygon, height, width) for polygon in outline)
    return tuple(polygon for polygon in clipped if len(polygon) >= _TRIANGLE)


def _clipped_polygon(polygon: Points, height: int, width: int) -> Points:
    """Cut a polygon along the four sides of the image (Sutherland and Hodgman)."""
    for axis, limit, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        if len(polygon) == 0:
            break
        inside = sign * (polygon[:, axis] - limit)  # distance from the side, positive within
        before, inside_before = np.roll(polygon, 1, axis=0), np.roll(inside, 1)
        crosses = (inside >= 0) != (inside_before >= 0)
        gap = np.where(crosses, inside_before - inside, 1)
        crossing = before + (inside_before / gap)[:, None] * (polygon - before)
        both = np.stack([crossing, polygon], axis=1).reshape(-1, 2)
        polygon = both[np.stack([crosses, inside >= 0], axis=1).reshape(-1)]
    return polygon


def _tightened(
    boxes: NDArray[np.float64], outlines: tuple[Outline, ...] | None, which: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Shrink some boxes, which were cut, to what is left of their outlines."""
    assert outlines is not None
    boxes = boxes.copy()
    for index in np.flatnonzero(which):
        if not outlines[index]:
            boxes[index] = 0
            continue
        left, top, right, bottom = _hulls(np.concatenate(outlines[index])[None])[0]
        boxes[index, :2] = np.maximum(boxes[index, :2], (left, top))
        boxes[index, 2:] = np.minimum(boxes[index, 2:], (right, bottom))
    return boxes

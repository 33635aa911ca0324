"""Tile detections -> scene detections: one object, one box.

A detection is *cut* where its box ends at an edge of its tile inside the scene: there may be more
of the object than the tile shows. Otherwise it is *whole*.

``interior`` keeps a detection where its centre lies in the interior of its tile. An object no
longer than the overlap is whole in the tile whose interior holds its centre, and what another
tile sees of it has its centre outside that tile's interior: for a detector that finds an object
alike in every tile that is exact, whatever the size of the tiles.

Real detectors draw a box a little differently in each tile, so that a centre near a border may
belong to both tiles or to neither. ``interior_nms`` therefore lets interiors reach a quarter of
the overlap further, and settles what is then found twice:

* of two detections of one class in different tiles that are the same object, the better one
  stays: one whose centre lies in its tile's own interior, then whole before cut, then the higher
  score. Two whole ones are the same from SAME_IOU on;
  where one is cut, from ``overlap`` of the smaller box on;
* an object longer than the overlap is whole in no tile: pieces that face each other over a seam
  and continue each other become one box around both, with the higher score.

``nms`` does the latter with all detections, whatever their centre. Two detections of one tile
never compete in that: the detector has looked at both at once.

Detectors drop boxes of one class that share much, each class by itself. Two kinds of doubles pass
that, and are settled at the end, in one tile too, where the higher score stays:

* ``nested``: a part of an object beside the whole one, which is much larger; so much of the
  smaller box of one class lies in the larger one;
* ``across_classes``: one object under two names, from SAME_IOU on. A ship in a harbour covers
  little of it, and both stay. Scores of two classes are compared by how far each lies above the
  threshold of its class: a rare class has lower scores, which mean no less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from sar_experiments.config import MergeRule
from sar_experiments.detections import Detections

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sar_experiments.predict.tiling import TilePlan

Boxes = NDArray[np.float64]

SAME_IOU = 0.3
"""Intersection over union from which two whole boxes of different tiles are the same object.

Two boxes of one object of 8 px, each edge of each off by a pixel, still share that much; those of
two ships side by side share less."""

_SIDE_BY_SIDE = 0.5

SEAM_PX = 2.0
"""A box that ends this near to an edge of its tile is cut by it."""

_LEFT, _TOP, _RIGHT, _BOTTOM = range(4)


@dataclass(frozen=True, eq=False, slots=True)
class _Found:
    """Detections of all tiles in pixels of the scene.

    Attributes:
        detections: N of them.
        tiles: (N,) index of the tile.
        windows: (N, 4) the tile.
        cut: (N, 4) whether the box ends at the tile's left, top, right, bottom inside the scene.
        guest: (N,) whether the centre lies outside its tile's interior.
    """

    detections: Detections
    tiles: NDArray[np.int64]
    windows: Boxes
    cut: NDArray[np.bool_]
    guest: NDArray[np.bool_]

    def select(self, keep: NDArray[Any]) -> _Found:
        return _Found(
            self.detections.select(keep),
            self.tiles[keep],
            self.windows[keep],
            self.cut[keep],
            self.guest[keep],
        )


def merge_tiles(  # noqa: PLR0913 - what was found where, and what is one object
    found: Iterable[tuple[int, Detections]],
    plan: Sequence[TilePlan],
    *,
    rule: MergeRule,
    overlap: float,
    nested: float | None = None,
    across_classes: bool = False,
    thresholds: NDArray[np.float32] | None = None,
) -> Detections:
    """Return the detections of a scene, best first.

    Args:
        found: Index into the plan and detections in pixels of that tile, in any order.
        plan: The tiles of the scene.
        rule: See above.
        overlap: Intersection over the smaller box from which a cut box and another are the same
            object; in (0, 1].
        nested: Intersection over the smaller box, in (0, 1], from which two of one class are one
            object, the better of them; None keeps both.
        across_classes: One object has one class, that of the highest score above its threshold.
        thresholds: (classes,) lowest scores that were let in; None lets in all.
    """
    every = _in_scene(found, plan)
    if rule is not MergeRule.nms:
        slack = 0.0 if rule is MergeRule.interior else 0.25
        every = every.select(_centre_is_inside(every, plan, slack))
    if rule is not MergeRule.interior:
        every = _joined(every)
        every = every.select(_best(every, overlap))
    merged = every.detections
    if nested is not None or across_classes:
        surest_first = merged.select(_order(_above_thresholds(merged, thresholds)))
        merged = surest_first.select(_alone(surest_first, nested, across_classes))
    return merged.select(_order(merged))


def _above_thresholds(found: Detections, thresholds: NDArray[np.float32] | None) -> Detections:
    """Replace scores by the share of the way from the threshold of the class, 0, to certain, 1."""
    if thresholds is None or len(set(thresholds.tolist())) == 1:
        return found
    least = thresholds.astype(np.float64)[found.classes]
    share = (found.scores - least) / np.maximum(1 - least, np.finfo(np.float32).eps)
    return replace(found, scores=share.astype(np.float32))


def _in_scene(found: Iterable[tuple[int, Detections]], plan: Sequence[TilePlan]) -> _Found:
    """Put all detections into pixels of the scene."""
    pairs = [(index, each) for index, each in sorted(found, key=lambda pair: pair[0]) if len(each)]
    tiles = np.repeat([index for index, _ in pairs], [len(each) for _, each in pairs])
    tiles = tiles.astype(np.int64)
    corners = [[w.left, w.top, w.right, w.bottom] for w in (tile.window for tile in plan)]
    windows = np.asarray(corners, np.float64).reshape(-1, 4)[tiles]
    boxes = np.concatenate([np.zeros((0, 4)), *(each.boxes for _, each in pairs)])
    boxes = boxes + windows[:, [_LEFT, _TOP, _LEFT, _TOP]]
    scene = np.array([0, 0, *np.max(corners, axis=0)[2:]], np.float64)
    cut = (np.abs(boxes - windows) <= SEAM_PX) & (windows != scene)
    detections = Detections.of(
        boxes,
        np.concatenate([[], *(each.scores for _, each in pairs)]),
        np.concatenate([[], *(each.classes for _, each in pairs)]),
    )
    scene_wide = _Found(detections, tiles, windows, cut, np.zeros(len(tiles), bool))
    return replace(scene_wide, guest=~_centre_is_inside(scene_wide, plan, 0.0))


def _centre_is_inside(every: _Found, plan: Sequence[TilePlan], slack: float) -> NDArray[np.bool_]:
    """Tell which centres lie in their tile's interior, grown by a share of the overlap."""
    inner = np.asarray(
        [[i.left, i.top, i.right, i.bottom] for i in (tile.interior for tile in plan)], np.float64
    ).reshape(-1, 4)[every.tiles]
    boxes = every.detections.boxes.astype(np.float64)
    x, y = boxes[:, [0, 2]].mean(axis=1), boxes[:, [1, 3]].mean(axis=1)
    # An interior ends half an overlap before its tile, and with the scene where the tile does.
    grown = inner + 2 * slack * (every.windows - inner)
    left, top, right, bottom = grown.T
    ends = every.windows[:, 2:] == inner[:, 2:]  # at the scene's border: inclusive
    is_before = np.where(ends, np.inf, 0.0)
    inside: NDArray[np.bool_] = (
        (x >= left) & (y >= top) & (x < right + is_before[:, 0]) & (y < bottom + is_before[:, 1])
    )
    return inside


def _order(detections: Detections, rank: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Return indices, lowest rank first, then best: total, so that it is not the tiles' order."""
    left, top = detections.boxes[:, 0], detections.boxes[:, 1]
    rank = np.zeros(len(detections), np.int64) if rank is None else rank
    return np.lexsort((detections.classes, left, top, -detections.scores, rank))


def _pairs(every: _Found) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all pairs of one class and different tiles whose boxes meet."""
    tree = shapely.STRtree(shapely.box(*every.detections.boxes.astype(np.float64).T))
    first, second = tree.query(tree.geometries)
    kinds = every.detections.classes
    chosen = (every.tiles[first] != every.tiles[second]) & (kinds[first] == kinds[second])
    return first[chosen], second[chosen]


def _best(every: _Found, overlap: float) -> NDArray[np.int64]:
    """Return those that no better detection of another tile speaks for."""
    first, second = _pairs(every)
    boxes = every.detections.boxes.astype(np.float64)
    is_cut: NDArray[np.bool_] = np.asarray(every.cut.any(axis=1))
    shared, smaller, union = _areas(boxes[first], boxes[second])
    same = np.where(
        is_cut[first] | is_cut[second], shared >= overlap * smaller, shared >= SAME_IOU * union
    )
    first, second = first[same & (shared > 0)], second[same & (shared > 0)]
    rivals: dict[int, list[int]] = {}
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        rivals.setdefault(one, []).append(other)
    gone = np.zeros(len(boxes), bool)
    kept = []
    for index in _order(every.detections, 2 * every.guest + is_cut).tolist():
        if not gone[index]:
            kept.append(index)
            gone[rivals.get(index, [])] = True
    return np.asarray(kept, np.int64)


def _alone(
    surest_first: Detections, nested: float | None, across_classes: bool
) -> NDArray[np.int64]:
    """Return those that are no better detection's object once more."""
    boxes = surest_first.boxes.astype(np.float64)
    tree = shapely.STRtree(shapely.box(*boxes.T))
    first, second = tree.query(tree.geometries)
    shared, smaller, union = _areas(boxes[first], boxes[second])
    is_one_class = surest_first.classes[first] == surest_first.classes[second]
    is_inside = shared >= (np.inf if nested is None else nested) * smaller
    is_alike = (shared >= SAME_IOU * union) & across_classes
    same = (first < second) & (shared > 0) & np.where(is_one_class, is_inside, is_alike)
    gone = np.zeros(len(boxes), bool)
    for better, worse in sorted(zip(first[same].tolist(), second[same].tolist(), strict=True)):
        gone[worse] |= not gone[better]
    return np.flatnonzero(~gone)


def _areas(one: Boxes, other: Boxes) -> tuple[Boxes, Boxes, Boxes]:
    """Return the shared area of each pair, the smaller of its areas, and that of both together."""
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    area, other_area = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (one, other))
    return shared, np.minimum(area, other_area), area + other_area - shared


# --- Objects longer than the overlap -----------------------------------------------------------


def _joined(every: _Found) -> _Found:
    """Replace pieces that continue each other over seams by one box around them."""
    first, second = _pairs(every)
    continues = _continues(every, first, second, axis=0) | _continues(every, first, second, axis=1)
    group = np.arange(len(every.tiles))
    for one, other in zip(first[continues].tolist(), second[continues].tolist(), strict=True):
        group[group == group[other]] = group[one]
    if len(np.unique(group)) == len(group):
        return every
    boxes = every.detections.boxes.copy()
    cut, guest = every.cut.copy(), every.guest.copy()
    for number in np.unique(group[np.concatenate([first[continues], second[continues]])]):
        members = np.flatnonzero(group == number)
        piece = members[np.argmax(every.detections.scores[members])]
        boxes[piece, :2] = boxes[members, :2].min(axis=0)
        boxes[piece, 2:] = boxes[members, 2:].max(axis=0)
        cut[piece] = guest[piece] = False
        group[members] = -1
        group[piece] = number
    whole = Detections(boxes, every.detections.scores, every.detections.classes)
    return replace(every, detections=whole, cut=cut, guest=guest).select(group >= 0)


def _continues(
    every: _Found, first: NDArray[np.int64], second: NDArray[np.int64], *, axis: int
) -> NDArray[np.bool_]:
    """Tell where the second piece goes on behind the far edge of the first one's tile.

    Both reach all through the strip that their tiles share, and lie side by side in it.
    """
    near, far, low, high = axis, axis + 2, 1 - axis, 3 - axis
    boxes = every.detections.boxes.astype(np.float64)
    one, other = boxes[first], boxes[second]
    facing = every.cut[first, far] & every.cut[second, near]
    strip_start, strip_end = every.windows[second, near], every.windows[first, far]
    through = (one[:, near] < strip_start - SEAM_PX) & (other[:, far] > strip_end + SEAM_PX)
    shared = np.minimum(one[:, high], other[:, high]) - np.maximum(one[:, low], other[:, low])
    shorter = np.minimum(one[:, high] - one[:, low], other[:, high] - other[:, low])
    beside: NDArray[np.bool_] = facing & through & (shared >= _SIDE_BY_SIDE * shorter)
    return beside

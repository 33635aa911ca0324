"""Scene size -> tiles that overlap, each with the part of the scene that it answers for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from sar_experiments.geometry import Window


@dataclass(frozen=True, slots=True)
class TilePlan:
    """One tile.

    Attributes:
        window: What the detector sees.
        interior: What this tile answers for: nearer to its middle than to any other tile's. The
            interiors of a scene cover every pixel once.
    """

    window: Window
    interior: Window


def plan_tiles(*, height: int, width: int, tile_px: int, overlap_px: int) -> list[TilePlan]:
    """Return the tiles of a scene, row by row.

    All have the same size, that of the scene where it is smaller; where that
    does not divide evenly, the overlap grows, the same between all neighbours.

    Args:
        height: Rows of the scene, 1 or more.
        width: Columns of the scene, 1 or more.
        tile_px: Side of a tile.
        overlap_px: Pixels that neighbours share at least; an interior ends at least half of that
            before its tile does.

    Raises:
        ValueError: The overlap is more than half a tile, so that more than two tiles in a row
            would see a pixel.
    """
    if not 0 <= 2 * overlap_px <= tile_px:
        msg = f"overlap_px={overlap_px} must lie in [0, tile_px / 2 = {tile_px / 2:g}]"
        raise ValueError(msg)
    rows = _spans(height, tile_px, overlap_px)
    cols = _spans(width, tile_px, overlap_px)
    return [
        TilePlan(Window(left, top, right, bottom), Window(inner_left, inner_top, inner_right, end))
        for top, bottom, inner_top, end in rows
        for left, right, inner_left, inner_right in cols
    ]


def _spans(size: int, tile_px: int, overlap_px: int) -> list[tuple[int, int, int, int]]:
    """Return start, end, start of the interior and end of the interior along one axis."""
    if size <= tile_px:
        return [(0, size, 0, size)]
    count = math.ceil((size - overlap_px) / (tile_px - overlap_px))
    starts = [round(index * (size - tile_px) / (count - 1)) for index in range(count)]
    # Half-way through each overlap.
    borders = [(following + start + tile_px) // 2 for start, following in pairwise(starts)]
    edges = [0, *borders, size]
    return [
        (start, start + tile_px, inner, end)
        for start, inner, end in zip(starts, edges, edges[1:], strict=False)
    ]

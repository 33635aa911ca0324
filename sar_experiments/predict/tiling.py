"""Scene size -> tiles that overlap, each with the part of the scene that it answers for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from sar_experiments.geometry import Window

if TYPE_CHECKING:
    from collections.abc import Sequence


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


def plan_tiles(
    *, height: int, width: int, tile_px: int, overlap_px: int, grid_px: int = 1
) -> list[TilePlan]:
    """Return the tiles of a scene, row by row.

    All have the same size, that of the scene where it is smaller; at the end they move inwards
    instead of reaching over the border, and the overlap grows: evenly, or that of the last ones
    where the others begin on a grid.

    Args:
        height: Rows of the scene, 1 or more.
        width: Columns of the scene, 1 or more.
        tile_px: Side of a tile.
        overlap_px: Pixels that neighbours share at least; an interior ends at least half of that
            before its tile does.
        grid_px: Tiles begin at multiples of it, but for the last of a row or column; a grid
            coarser than the steps between tiles is left alone.

    Raises:
        ValueError: The overlap is more than half a tile, so that more than two tiles in a row
            would see a pixel.
    """
    if not 0 <= 2 * overlap_px <= tile_px:
        msg = f"overlap_px={overlap_px} must lie in [0, tile_px / 2 = {tile_px / 2:g}]"
        raise ValueError(msg)
    rows = _spans(height, tile_px, overlap_px, grid_px)
    cols = _spans(width, tile_px, overlap_px, grid_px)
    return [
        TilePlan(Window(left, top, right, bottom), Window(inner_left, inner_top, inner_right, end))
        for top, bottom, inner_top, end in rows
        for left, right, inner_left, inner_right in cols
    ]


def gainful_grid(grid_px: int, *, tile_px: int, overlap_px: int, most: int) -> int:
    """Return the grid, or 1 where steps shortened to it cost more than blocks of tiles share.

    What counts are the pixels that a detector sees per pixel of the scene.

    Args:
        grid_px: See ``plan_tiles``.
        tile_px: Side of a tile.
        overlap_px: Pixels that neighbours share at least.
        most: Tiles of a block, see ``in_blocks``.
    """
    step = tile_px - overlap_px
    on_grid = step - step % grid_px
    if on_grid == 0:
        return 1
    high = math.isqrt(most)
    shared = math.prod(
        (tile_px + (count - 1) * on_grid) / (count * on_grid) for count in (high, most // high)
    )
    return grid_px if shared < (tile_px / step) ** 2 else 1


def in_blocks(plan: Sequence[TilePlan], most: int, *, highest: int) -> list[list[int]]:
    """Return the tiles of a scene in rectangles of neighbours, as square as can be.

    Args:
        plan: From ``plan_tiles``.
        most: Tiles of a block, 1 or more.
        highest: Rows of a block at most, 1 or more.

    Returns:
        Indices into the plan; every tile is in one block.
    """
    high = min(highest, math.isqrt(most))
    wide = most // high
    tops = {top: row for row, top in enumerate(sorted({tile.window.top for tile in plan}))}
    lefts = {left: col for col, left in enumerate(sorted({tile.window.left for tile in plan}))}
    blocks: dict[tuple[int, int], list[int]] = {}
    for index, tile in enumerate(plan):
        at = tops[tile.window.top] // high, lefts[tile.window.left] // wide
        blocks.setdefault(at, []).append(index)
    return list(blocks.values())


def _spans(
    size: int, tile_px: int, overlap_px: int, grid_px: int
) -> list[tuple[int, int, int, int]]:
    """Return start, end, start of the interior and end of the interior along one axis."""
    if size <= tile_px:
        return [(0, size, 0, size)]
    step = tile_px - overlap_px
    if 1 < grid_px <= step:
        starts = [*range(0, size - tile_px, step - step % grid_px), size - tile_px]
    else:
        count = math.ceil((size - overlap_px) / step)
        starts = [round(index * (size - tile_px) / (count - 1)) for index in range(count)]
    # Half-way through each overlap.
    borders = [(following + start + tile_px) // 2 for start, following in pairwise(starts)]
    edges = [0, *borders, size]
    return [
        (start, start + tile_px, inner, end)
        for start, inner, end in zip(starts, edges, edges[1:], strict=False)
    ]

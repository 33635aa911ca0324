"""How long the objects of a training set are, and whether tiles overlap enough for them.

Loads no torch: a prediction by ONNX Runtime asks, too.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sar_experiments.config import PredictConfig
    from sar_experiments.data.annotations import Dataset

logger = logging.getLogger(__name__)

_STEP_PX = 8
_FEW = 0.01  # of the objects: so many may be longer without a word


def lengths_of(part: Dataset) -> list[list[int]]:
    """Return a histogram of the boxes' longer sides.

    Returns:
        Pairs ``[length, count]``: so many boxes are up to ``length`` pixels long and longer than
        the next smaller multiple of 8.
    """
    counts: Counter[int] = Counter()
    for sample in part.samples:
        for each in sample["annotations"]:
            left, top, right, bottom = each["bbox"]
            counts[_STEP_PX * max(math.ceil(max(right - left, bottom - top) / _STEP_PX), 1)] += 1
    return [[length, count] for length, count in sorted(counts.items())]


def too_long(lengths_px: Sequence[Sequence[int]] | None, settings: PredictConfig) -> str:
    """Return a sentence where more than 1 % of the objects are longer than tiles overlap.

    Args:
        lengths_px: As ``lengths_of`` gave it; None where nothing tells.
        settings: With tile size and overlap in pixels.

    >>> from types import SimpleNamespace as Settings
    >>> too_long([[32, 90], [80, 10]], Settings(tile_px=256, overlap_px=64))[:49]
    '10 % of the objects that were learnt from are lon'
    >>> too_long([[32, 90]], Settings(tile_px=256, overlap_px=64))
    ''
    """
    if not lengths_px or settings.overlap_px is None or settings.tile_px is None:
        return ""
    total = sum(count for _, count in lengths_px)
    longer = sum(count for length, count in lengths_px if length > settings.overlap_px)
    if longer <= _FEW * total:
        return ""
    longest = max(length for length, _ in lengths_px)
    wider = f"predict.overlap_px={longest}"
    if 2 * longest > settings.tile_px:
        wider += f" predict.tile_px={2 * longest}"
    return (
        f"{max(longer / total, 0.01):.0%} of the objects that were learnt from are longer than the"
        f" overlap of tiles, {settings.overlap_px} px (the longest up to {longest} px): such an"
        f" object may lie whole in no tile; {wider}"
    ).replace("%", " %", 1)


def say_too_long(lengths_px: Sequence[Sequence[int]] | None, settings: PredictConfig) -> None:
    """Warn of objects that are longer than tiles overlap."""
    sentence = too_long(lengths_px, settings)
    if sentence:
        logger.warning("%s", sentence)

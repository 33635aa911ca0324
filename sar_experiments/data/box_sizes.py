"""Sizes of boxes against anchors: what the anchors reach, and which would reach more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sar_experiments.data.annotations import Dataset

REACHED_IOU = 0.5
"""An anchor that overlaps a box by less, both centred, teaches the proposals little."""


@dataclass(frozen=True)
class AnchorFit:
    """How well anchors fit boxes.

    Attributes:
        reached_share: Share of boxes that some anchor overlaps by REACHED_IOU, both centred.
        mean_iou: Mean overlap of a box with its best anchor, both centred.
    """

    reached_share: float
    mean_iou: float


@dataclass(frozen=True)
class AnchorProposal:
    """Anchors that fit the boxes better, in the form of the config keys.

    Attributes:
        sizes: For ``model.anchor_sizes``, a list per level, as many levels as before.
        ratios: For ``model.anchor_ratios``.
        fit: How well they fit.
    """

    sizes: list[list[float]]
    ratios: list[float]
    fit: AnchorFit


def box_sizes(dataset: Dataset, *, min_size_px: int, max_size_px: int) -> NDArray[np.float64]:
    """Return (N, 2) width and height of the boxes as the network sees them, crowds left out.

    Args:
        dataset: Boxes in pixels of the files.
        min_size_px: Shortest edge that images are resized to; 0 keeps the size of the file.
        max_size_px: Longest edge after resizing.
    """
    sizes = [
        [(a["bbox"][2] - a["bbox"][0]) * scale, (a["bbox"][3] - a["bbox"][1]) * scale]
        for sample in dataset.samples
        for scale in [_scale(sample["height"], sample["width"], min_size_px, max_size_px)]
        for a in sample["annotations"]
        if not a["iscrowd"]
    ]
    found = np.asarray(sizes, dtype=np.float64).reshape(-1, 2)
    return found[(found > 0).all(axis=1)]


def anchor_fit(
    sizes: NDArray[np.float64], anchor_sizes: Sequence[Sequence[float]], ratios: Sequence[float]
) -> AnchorFit:
    """Measure anchors, each size with each ratio of height to width, against boxes."""
    if not len(sizes):
        return AnchorFit(0.0, 0.0)
    best = _centred_iou(sizes, _anchors([s for level in anchor_sizes for s in level], ratios))
    best = best.max(axis=1)
    return AnchorFit(float((best >= REACHED_IOU).mean()), float(best.mean()))


def propose_anchors(
    sizes: NDArray[np.float64], *, levels: int, sizes_per_level: int
) -> AnchorProposal | None:
    """Propose anchors by k-means; None for fewer boxes than anchors.

    Sizes are clusters of the logarithm of the square root of the area, ratios three clusters of
    the logarithm of height over width: an anchor twice too large is as wrong as one half as large.
    """
    count = levels * sizes_per_level
    if len(sizes) < max(count, 3):
        return None
    clusters = np.exp(_kmeans(np.log(np.sqrt(sizes.prod(axis=1))), count))
    ratios = np.exp(_kmeans(np.log(sizes[:, 1] / sizes[:, 0]), 3))
    per_level = [
        [round(float(s), 1) for s in clusters[i * sizes_per_level : (i + 1) * sizes_per_level]]
        for i in range(levels)
    ]
    rounded = [round(float(ratio), 2) for ratio in ratios]
    return AnchorProposal(per_level, rounded, anchor_fit(sizes, per_level, rounded))


def _scale(height: int, width: int, min_size_px: int, max_size_px: int) -> float:
    if min_size_px <= 0 or min(height, width) <= 0:
        return 1.0
    return min(min_size_px / min(height, width), max_size_px / max(height, width))


def _anchors(sizes: Sequence[float], ratios: Sequence[float]) -> NDArray[np.float64]:
    """Return (A, 2) width and height; an anchor of size s and ratio r has area s²."""
    return np.asarray([(s / r**0.5, s * r**0.5) for s in sizes for r in ratios], dtype=np.float64)


def _centred_iou(sizes: NDArray[np.float64], anchors: NDArray[np.float64]) -> NDArray[np.float64]:
    shared = np.minimum(sizes[:, None], anchors[None]).prod(axis=2)
    union = sizes.prod(axis=1)[:, None] + anchors.prod(axis=1)[None] - shared
    return np.asarray(shared / union, dtype=np.float64)


def _kmeans(values: NDArray[np.float64], count: int, rounds: int = 50) -> NDArray[np.float64]:
    """Return ``count`` sorted cluster centres of numbers, starting from their quantiles."""
    centres = np.quantile(values, (np.arange(count) + 0.5) / count)
    for _ in range(rounds):
        nearest = np.abs(values[:, None] - centres[None]).argmin(axis=1)
        moved = np.asarray(
            [
                values[nearest == i].mean() if (nearest == i).any() else c
                for i, c in enumerate(centres)
            ]
        )
        if np.allclose(moved, centres):
            break
        centres = moved
    return np.sort(centres)

"""A trained Detectron2 model behind the protocol of tile detectors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.modeling.postprocessing import detector_postprocess

from sar_experiments.data.chip import Chip, resized
from sar_experiments.detections import Detections
from sar_experiments.geometry import Window
from sar_experiments.predict.mosaic import Place, detect_on_canvas, grid_of, shared_stride

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sar_experiments.data.radiometry import Radiometry
    from sar_experiments.predict.detector import Tile


@dataclass(frozen=True, eq=False)
class NetworkDetector:
    """Tiles through radiometry and network; the same object serves every scene.

    Attributes:
        model: Detectron2 model, weights loaded, in evaluation mode.
        radiometry: That of the training.
        classes: Names of the network's outputs.
        scale: Factor by which tiles are enlarged for the network.
        autocast: Type of the forward pass; None is float32.
    """

    model: torch.nn.Module
    radiometry: Radiometry
    classes: tuple[str, ...]
    scale: float = 1.0
    autocast: torch.dtype | None = None

    @cached_property
    def grid_px(self) -> int:
        """Pixels of the scene on whose multiples tiles share what they overlap; 1 if they don't."""
        stride = shared_stride(self.model) if self.radiometry.is_local else None
        return grid_of(stride, self.scale)

    def __call__(self, tiles: Sequence[Tile]) -> list[Detections]:
        """Return the detections of each tile, in pixels of the tile; see TileDetector."""
        device = next(self.model.parameters()).device.type
        together, alone = self._groups(tiles)
        found: dict[int, Detections] = {}
        with (
            torch.inference_mode(),
            torch.autocast(device, self.autocast, enabled=self.autocast is not None),
        ):
            for group in together:
                on_canvas = self._on_canvas([tiles[index] for index in group])
                found.update(zip(group, on_canvas, strict=True))
            if alone:
                outputs = self.model([self._input(tiles[index]) for index in alone])
                each = (_detections(output["instances"]) for output in outputs)
                found.update(zip(alone, each, strict=True))
        return [found[index] for index in range(len(tiles))]

    def _groups(self, tiles: Sequence[Tile]) -> tuple[list[list[int]], list[int]]:
        """Return which tiles gain by sharing a canvas, and those that go through by themselves."""
        if self.grid_px == 1:
            return [], list(range(len(tiles)))
        candidates: dict[Any, list[int]] = {}
        for index, tile in enumerate(tiles):
            window = tile.window
            offsets = window.top % self.grid_px, window.left % self.grid_px
            candidates.setdefault((tile.scene, offsets, tile.pixels.shape), []).append(index)
        together = []
        for group in candidates.values():
            windows = [tiles[index].window for index in group]
            around, area = _around(windows), sum(each.width * each.height for each in windows)
            if len(group) > 1 and around.width * around.height <= area:
                together.append(group)
        shared = {index for group in together for index in group}
        return together, [index for index in range(len(tiles)) if index not in shared]

    def _on_canvas(self, tiles: Sequence[Tile]) -> list[Detections]:
        around = _around([tile.window for tile in tiles])
        canvas = np.zeros((around.height, around.width, self.radiometry.channels), np.float32)
        places = []
        for tile in tiles:
            top, left = tile.window.top - around.top, tile.window.left - around.left
            height, width = tile.valid.shape
            canvas[top : top + height, left : left + width] = self._encoded(tile)
            top, left = (round(self.scale * each) for each in (top, left))
            places.append(Place(top, left, *self._scaled((height, width))))
        # Not the canvas scaled: where halves are rounded, that may be a pixel less.
        ends = [(place.top + place.height, place.left + place.width) for place in places]
        size = max(bottom for bottom, _ in ends), max(right for _, right in ends)
        found = detect_on_canvas(self.model, self._to_network(canvas, size), places)
        height, width = tiles[0].valid.shape
        return [_detections(detector_postprocess(each, height, width)) for each in found]

    def _input(self, tile: Tile) -> dict[str, Any]:
        height, width = tile.valid.shape
        # Detectron2 scales its boxes back to this height and width.
        return {
            "image": self._to_network(self._encoded(tile), self._scaled((height, width))),
            "height": height,
            "width": width,
        }

    def _encoded(self, tile: Tile) -> NDArray[np.float32]:
        return self.radiometry.encode(tile.pixels, valid=tile.valid)

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width that the network sees of a height and width."""
        height, width = (max(1, round(self.scale * side)) for side in size)
        return height, width

    def _to_network(self, image: NDArray[np.float32], size: tuple[int, int]) -> torch.Tensor:
        """Return (C, h, w) for (H, W, C), enlarged to a height and width."""
        height, width = size
        if size != image.shape[:2]:
            image = resized(Chip.of(image), height=height, width=width).image
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _around(windows: Sequence[Window]) -> Window:
    """Return the smallest window around all."""
    return Window(
        min(each.left for each in windows),
        min(each.top for each in windows),
        max(each.right for each in windows),
        max(each.bottom for each in windows),
    )


def _detections(instances: Any) -> Detections:  # noqa: ANN401 - Detectron2's
    instances = instances.to("cpu")
    return Detections.of(
        instances.pred_boxes.tensor.float().numpy(),
        instances.scores.float().numpy(),
        instances.pred_classes.numpy(),
    )

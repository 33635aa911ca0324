"""A trained Detectron2 model behind the protocol of tile detectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sar_experiments.data.chip import Chip, resized
from sar_experiments.detections import Detections

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    def __call__(self, tiles: Sequence[Tile]) -> list[Detections]:
        """Return the detections of each tile, in pixels of the tile; see TileDetector."""
        device = next(self.model.parameters()).device.type
        inputs = [self._input(tile) for tile in tiles]
        with (
            torch.inference_mode(),
            torch.autocast(device, self.autocast, enabled=self.autocast is not None),
        ):
            outputs = self.model(inputs)
        return [_detections(output["instances"]) for output in outputs]

    def _input(self, tile: Tile) -> dict[str, Any]:
        height, width = tile.valid.shape
        image = self.radiometry.encode(tile.pixels, valid=tile.valid)
        if self.scale != 1:
            rows, cols = (max(1, round(self.scale * side)) for side in (height, width))
            image = resized(Chip.of(image), height=rows, width=cols).image
        # Detectron2 scales its boxes back to this height and width.
        return {
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "height": height,
            "width": width,
        }


def _detections(instances: Any) -> Detections:  # noqa: ANN401 - Detectron2's
    instances = instances.to("cpu")
    return Detections.of(
        instances.pred_boxes.tensor.float().numpy(),
        instances.scores.float().numpy(),
        instances.pred_classes.numpy(),
    )

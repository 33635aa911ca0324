"""What prediction asks of a detector: tiles in, detections out, whatever happens between.

A detector is made once per scene, by a factory that is told what the scene is like: a network
takes its tiles as they are, a CFAR turns metres into pixels first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sar_experiments.detections import Detections
from sar_experiments.geometry import GeoTransform, Window


@dataclass(frozen=True, eq=False, slots=True)
class Tile:
    """A window of a scene.

    Attributes:
        pixels: (H, W, C) in the dtype of the file. What stands where there is no data means
            nothing, NaN included.
        valid: (H, W), False where any band has no data.
        window: Where in the scene, H by W.
        scene: Its name.
    """

    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    window: Window
    scene: str = ""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class SceneHeader:
    """What is known of a scene before a pixel is read.

    Attributes:
        name: Of outputs; unique within a prediction.
        files: What is read, one file per polarisation or one for all.
        height: Rows.
        width: Columns.
        bands: Names of the bands, such as ``vv``, or ``1``, ``2`` where the file names none.
        numbers: Of the bands that were chosen, from 1; None where all are read.
        dtype: Of the pixels' values, NumPy's name.
        nodata: The stored number that marks no data, besides NaN; None where none does.
        pixel_m: Height and width of a pixel on the ground, in metres, at the middle of the
            scene; None without geo-reference.
        resolution_m: Side of the sensor's resolution cell on the ground, at least a pixel; None
            where nothing tells.
        georeference: Pixel -> longitude and latitude; None where the file has none.
        crs: Of the file, for people; None without.
        time: Of the acquisition, ISO 8601; None where the file does not say.
    """

    name: str
    files: tuple[Path, ...]
    height: int
    width: int
    bands: tuple[str, ...]
    dtype: str
    numbers: tuple[int, ...] | None = None
    nodata: float | None = None
    pixel_m: tuple[float, float] | None = None
    resolution_m: float | None = None
    georeference: GeoTransform | None = None
    crs: str | None = None
    time: str | None = None


class TileDetector(Protocol):
    """Finds objects in tiles.

    Attributes:
        classes: Class names; detections hold indices into them.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; detections hold indices into them."""
        ...

    def __call__(self, tiles: Sequence[Tile]) -> list[Detections]:
        """Return the detections of each tile, in pixels of the tile.

        Args:
            tiles: Of equal size, each with at least one valid pixel. What is found in a tile must
                not depend on the others of the call: batches only save time.
        """
        ...


DetectorFactory = Callable[[SceneHeader], TileDetector]
"""Makes the detector of a scene; raises SceneError where it cannot work on such a scene."""

"""Whether the numbers of a scene can mean what a radiometry takes them for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sar_experiments.config import StoredAs
from sar_experiments.errors import SceneError
from sar_experiments.geometry import Window
from sar_experiments.predict.scene import Scene
from sar_experiments.predict.sources import SceneFiles

if TYPE_CHECKING:
    from sar_experiments.config import RadiometryConfig
    from sar_experiments.predict.detector import SceneHeader

_PROBE_PX = 128  # side of each of nine windows that are looked at
_MOSTLY = 0.5  # noise that was subtracted leaves a few negative powers, decibels of sea many


def check_units(header: SceneHeader, radiometry: RadiometryConfig, who: str) -> None:
    """Refuse decibels where amplitude or intensity is expected, and the other way round.

    Nothing would be found in the one, and anything in the other.

    Args:
        header: Of the scene.
        radiometry: Of the detector.
        who: Takes the numbers so, for the message.

    Raises:
        SceneError: The numbers mean something else, or the scene cannot be read.
    """
    dtype = np.dtype(header.dtype)
    is_db = radiometry.stored_as is StoredAs.db
    if is_db and dtype.kind == "u":
        msg = (
            f"{header.files[0]} stores {dtype}, which holds no negative decibels; {who} takes"
            " decibels (radiometry.stored_as=db)"
        )
        raise SceneError(msg)
    if not is_db and dtype.kind in "fi" and _negative_share(header, radiometry) > _MOSTLY:
        stored_as = radiometry.stored_as.name
        msg = (
            f"{header.files[0]} holds mostly negative numbers, decibels by the look of them; {who}"
            f" takes {stored_as} (radiometry.stored_as={stored_as}). Convert the scene, or use a"
            " detector of decibels, such as one of radiometry=sentinel1_vv_db"
        )
        raise SceneError(msg)


def _negative_share(header: SceneHeader, radiometry: RadiometryConfig) -> float:
    """Return the share of negative numbers among those that are data, in nine places."""
    scene = Scene(SceneFiles(header.name, header.files, ()), nodata=radiometry.nodata)
    negative = total = 0
    try:
        for window in _probes(header.height, header.width):
            tile = scene.read(window)
            pixels = tile.pixels[tile.valid]
            negative += int((pixels < 0).sum())
            total += pixels.size
    finally:
        scene.close()
    return negative / max(1, total)


def _probes(height: int, width: int) -> list[Window]:
    rows = [int(height * share) for share in (0.2, 0.5, 0.8)]
    cols = [int(width * share) for share in (0.2, 0.5, 0.8)]
    return [
        Window(col, row, col + _PROBE_PX, row + _PROBE_PX).clipped(height=height, width=width)
        for row in rows
        for col in cols
    ]

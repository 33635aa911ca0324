"""Whether the numbers of a scene can mean what a radiometry takes them for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_experiments.config import StoredAs
from sar_experiments.data.radiometry import Radiometry
from sar_experiments.errors import DatasetError, SceneError
from sar_experiments.geometry import Window
from sar_experiments.predict.scene import Scene
from sar_experiments.predict.sources import SceneFiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sar_experiments.config import RadiometryConfig
    from sar_experiments.predict.detector import SceneHeader

    Probes = list[tuple[NDArray[Any], NDArray[np.bool_]]]

logger = logging.getLogger(__name__)

_PROBE_PX = 128  # side of each of nine windows that are looked at
_MOSTLY = 0.5  # noise that was subtracted leaves a few negative powers, decibels of sea many
_FARTHEST_DB = 100.0  # from 0; no radar measures such levels
_NEARLY_ALL = 0.95


def check_units(
    header: SceneHeader, radiometry: RadiometryConfig, who: str, *, is_encoded: bool = True
) -> None:
    """Refuse decibels where amplitude or intensity is expected, and the other way round.

    Nothing would be found in the one, and anything in the other. Warn where what the network would
    see is black or white.

    Args:
        header: Of the scene.
        radiometry: Of the detector.
        who: Takes the numbers so, for the message.
        is_encoded: Whether the detector sees what lies between the radiometry's low and high only.

    Raises:
        SceneError: The numbers mean something else, or the scene cannot be read.
    """
    dtype, file = np.dtype(header.dtype), header.files[0]
    is_db = radiometry.stored_as is StoredAs.db
    if is_db and dtype.kind == "u":
        msg = (
            f"{file} stores {dtype}, which holds no negative decibels; {who} takes"
            " decibels (radiometry.stored_as=db)"
        )
        raise SceneError(msg)
    highest = min(radiometry.high or [np.inf])
    if dtype.kind == "u" and (not is_encoded or np.iinfo(dtype).max <= highest):
        return  # such numbers cannot be wrong
    probes = _probes(header, radiometry)
    values = np.concatenate([pixels[valid].ravel() for pixels, valid in probes])
    if not len(values):
        return
    if is_db and abs(np.median(values)) > _FARTHEST_DB:
        msg = (
            f"{file} holds numbers around {np.median(values):.4g}, which are no decibels; {who}"
            " takes decibels (radiometry.stored_as=db). If they are parts of a decibel, write the"
            " scale into the file, such as gdal_translate -a_scale 0.01"
        )
        raise SceneError(msg)
    if not is_db and (values < 0).mean() > _MOSTLY:
        stored_as = radiometry.stored_as.name
        msg = (
            f"{file} holds mostly negative numbers, decibels by the look of them; {who}"
            f" takes {stored_as} (radiometry.stored_as={stored_as}). Convert the scene, or use a"
            " detector of decibels, such as one of radiometry=sentinel1_vv_db"
        )
        raise SceneError(msg)
    if is_encoded:
        _warn_outside(header, radiometry, probes)
    if is_db and _expects_negative(radiometry) and values.min() >= 0:
        logger.warning(
            "%s: none of its numbers is negative, as decibels of radiometry.low=%s are; is it"
            " linear (radiometry.stored_as=intensity or amplitude)?",
            file,
            radiometry.low,
        )


def _expects_negative(radiometry: RadiometryConfig) -> bool:
    return bool(radiometry.low) and max(radiometry.low or [0]) < 0


def _warn_outside(header: SceneHeader, radiometry: RadiometryConfig, probes: Probes) -> None:
    """Warn where nearly all values are black or white after encoding."""
    encoder = Radiometry.from_config(radiometry)
    try:
        shares = [encoder.outside(pixels, valid) for pixels, valid in probes if valid.any()]
    except DatasetError:  # other channels: the tiles tell
        return
    share = float(np.mean(shares))
    if share > _NEARLY_ALL:
        logger.warning(
            "%s: %.0f %% of its pixels lie outside radiometry.low=%s to high=%s, which the network"
            " sees as black or white; is radiometry=%s meant for such numbers?",
            header.files[0],
            100 * share,
            radiometry.low,
            radiometry.high,
            radiometry.name,
        )


def _probes(header: SceneHeader, radiometry: RadiometryConfig) -> Probes:
    """Return pixels (H, W, C) and where they are data, in nine places or all of a small scene."""
    source = SceneFiles(header.name, header.files, ())
    scene = Scene(source, bands=header.numbers, nodata=radiometry.nodata)
    try:
        tiles = [scene.read(window) for window in _windows(header.height, header.width)]
    finally:
        scene.close()
    return [(tile.pixels, tile.valid) for tile in tiles]


def _windows(height: int, width: int) -> list[Window]:
    if max(height, width) <= 3 * _PROBE_PX:
        return [Window(0, 0, width, height)]
    rows = [int(height * share) for share in (0.2, 0.5, 0.8)]
    cols = [int(width * share) for share in (0.2, 0.5, 0.8)]
    return [
        Window(col, row, col + _PROBE_PX, row + _PROBE_PX).clipped(height=height, width=width)
        for row in rows
        for col in cols
    ]

"""Land and other places whose detections are filtered: vector files, with a buffer in metres.

Everything is compared on one map, an azimuthal equidistant projection around the middle of the
scene: metres are metres there (to 0.1 % within 500 km), whatever the geo-reference of the scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyogrio
import pyproj
import shapely

from sar_experiments.errors import SceneError
from sar_experiments.geometry import WGS84, GeoTransform, Points, Window, wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_MARGIN_DEG = 0.05
_EDGE_POINTS = 9  # of each side of a tile or scene: it may be bent on the map
_EDGE_DEG = 0.02  # longest straight piece of a coast
_DEG_PER_M = 1 / 111_000
_UNREADABLE = (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError)  # a cut one: layer


@dataclass(frozen=True, slots=True)
class MaskFile:
    """One vector file.

    Attributes:
        reason: What its detections are filtered for, such as ``land``.
        path: GeoJSON, GeoPackage, shapefile or anything GDAL reads.
        buffer_m: Metres by which its shapes grow; below 0 areas shrink.
        hides_tiles: Tiles inside are not looked at.
    """

    reason: str
    path: Path
    buffer_m: float
    hides_tiles: bool


class Masks:
    """Places of one scene whose detections are filtered.

    Args:
        files: In the order in which they are asked.
        georeference: Of the scene.
        height: Rows of the scene.
        width: Columns of the scene.

    Raises:
        SceneError: A file cannot be read or tells no coordinate system.
    """

    def __init__(
        self, files: Sequence[MaskFile], georeference: GeoTransform, *, height: int, width: int
    ) -> None:
        self._georeference = georeference
        outline = georeference.to_lonlat(_outline(Window(0, 0, width, height)))
        middle = georeference.to_lonlat(np.array([width / 2, height / 2]))
        outline[:, 0] = middle[0] + wrapped(outline[:, 0] - middle[0])
        self._map = pyproj.Transformer.from_crs(
            WGS84, f"+proj=aeqd +lat_0={middle[1]} +lon_0={middle[0]} +datum=WGS84", always_xy=True
        )
        self._areas = [(each, self._read(each, outline)) for each in files]
        for _, area in self._areas:
            shapely.prepare(area)

    def reasons(self, boxes: NDArray[np.float32]) -> list[str]:
        """Return why each box is filtered: its centre lies there; empty where it is kept.

        Args:
            boxes: (N, 4) in pixels of the scene.
        """
        reasons = [""] * len(boxes)
        if not len(boxes):
            return reasons
        centres = boxes.astype(np.float64).reshape(-1, 2, 2).mean(axis=1)
        x, y = self._on_map(self._georeference.to_lonlat(centres))
        for mask, area in self._areas:
            for index in np.flatnonzero(shapely.contains_xy(area, x, y)):
                reasons[index] = reasons[index] or mask.reason
        return reasons

    def hide(self, window: Window) -> bool:
        """Tell whether a tile lies wholly on land."""
        outline = self._georeference.to_lonlat(_outline(window))
        tile = shapely.Polygon(np.stack(self._on_map(outline), axis=1))
        return any(
            mask.hides_tiles and shapely.contains_properly(area, tile) for mask, area in self._areas
        )

    def _on_map(self, lonlat: Points) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        x, y = self._map.transform(lonlat[..., 0], lonlat[..., 1])
        return np.asarray(x), np.asarray(y)

    def _read(self, mask: MaskFile, outline: Points) -> Any:  # noqa: ANN401 - shapely's
        """Return the union of the shapes near the scene on the map, grown by the buffer."""
        margin = _MARGIN_DEG + 2 * abs(mask.buffer_m) * _DEG_PER_M
        squeezed = margin / max(0.05, float(np.cos(np.radians(np.abs(outline[:, 1]).max()))))
        reach = np.array([squeezed, margin])
        west, south = outline.min(axis=0) - reach
        east, north = outline.max(axis=0) + reach
        shapes = []
        for shift in (-360.0, 0.0, 360.0):  # the scene may cross the antimeridian
            low, high = max(west + shift, -180.0), min(east + shift, 180.0)
            if low < high:
                shapes += _shapes(mask.path, (low, max(south, -90.0), high, min(north, 90.0)))
        on_map = [shapely.transform(shape, self._project) for shape in shapes]
        area = shapely.union_all(shapely.make_valid(on_map)) if on_map else shapely.Polygon()
        return shapely.buffer(area, mask.buffer_m) if mask.buffer_m else area

    def _project(self, lonlat: Points) -> Points:
        return np.stack(self._on_map(lonlat), axis=-1)


def _shapes(path: Path, bounds: tuple[float, float, float, float]) -> list[Any]:
    """Return the shapes of a file in longitude and latitude, cut to the bounds."""
    if not path.exists():
        msg = f"{path} is missing; accepted are vector files such as GeoJSON, GeoPackage, shapefile"
        raise SceneError(msg)
    try:
        crs = pyogrio.read_info(path)["crs"]
        if crs is None:
            msg = f"{path} tells no coordinate system (a shapefile needs its .prj)"
            raise SceneError(msg)
        to_file = pyproj.Transformer.from_crs(WGS84, crs, always_xy=True)
        box = to_file.transform_bounds(*bounds, densify_pts=21)
        *_, geometries, _ = pyogrio.raw.read(path, columns=[], bbox=box)
    except (*_UNREADABLE, pyproj.exceptions.ProjError, ValueError) as error:
        msg = f"{path} cannot be read as a vector file: {error}"
        raise SceneError(msg) from error
    shapes = [each for each in shapely.from_wkb(geometries) if each is not None]
    back = pyproj.Transformer.from_crs(crs, WGS84, always_xy=True)
    found = []
    for shape in shapes:
        lonlat = shapely.transform(
            shape, lambda xy: np.stack(back.transform(xy[:, 0], xy[:, 1]), axis=-1)
        )
        cut = shapely.intersection(shapely.make_valid(lonlat), shapely.box(*bounds))
        if not cut.is_empty:
            found.append(shapely.segmentize(cut, _EDGE_DEG))
    return found


def _outline(window: Window) -> Points:
    """Return points along the edges of a window, (4 N, 2)."""
    share = np.linspace(0, 1, _EDGE_POINTS)[:-1, None]
    corners = np.array(
        [
            [window.left, window.top],
            [window.right, window.top],
            [window.right, window.bottom],
            [window.left, window.bottom],
        ],
        np.float64,
    )
    following = np.roll(corners, -1, axis=0)
    sides = [start + share * (end - start) for start, end in zip(corners, following, strict=True)]
    return np.concatenate(sides)

"""Window (whole pixels), and pixel -> Earth by an affine transform or control points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyproj
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Points = NDArray[np.float64]
"""(..., 2): x, y in pixels, or longitude, latitude in degrees."""

WGS84 = "EPSG:4326"
GEOD = pyproj.Geod(ellps="WGS84")

_HALF_TURN = 180.0
_MOST_POINTS = 20_000  # of a fit; Sentinel-1 has some 200
_NOTHING_M = 1e-4
_MOST_STEPS = 20  # of Newton; from the middle of a scene it takes three or four
_NEAR_PX = 1e-4
_GEODETIC, _GEOCENTRIC = "EPSG:4979", "EPSG:4978"


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of whole pixels; right and bottom are exclusive.

    Raises:
        ValueError: It is turned inside out.
    """

    left: int
    top: int
    right: int
    bottom: int

    def __post_init__(self) -> None:
        if self.right < self.left or self.bottom < self.top:
            msg = f"{self} must have left <= right and top <= bottom"
            raise ValueError(msg)

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    def clipped(self, *, height: int, width: int) -> Window:
        """Return the part inside an image; empty, at its border, where nothing is inside."""
        xs = [min(max(x, 0), width) for x in (self.left, self.right)]
        ys = [min(max(y, 0), height) for y in (self.top, self.bottom)]
        return Window(xs[0], ys[0], xs[1], ys[1])

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the view of an (H, W, ...) array that lies inside."""
        return array[self.top : self.bottom, self.left : self.right]


class GeoTransform(Protocol):
    """Where the pixels of a scene lie on the Earth."""

    def to_lonlat(self, points: Points) -> Points:
        """Return longitude and latitude on WGS84, in degrees.

        Args:
            points: (..., 2) x, y in pixels. Continuous: pixel k covers ``[k, k + 1]``, its
                centre is k + 0.5.
        """
        ...


class AffineTransform:
    """Pixels -> coordinates of a map by six numbers, then to longitude and latitude.

    Args:
        coefficients: ``a, b, c, d, e, f``: ``a x + b y + c`` is the map's x and ``d x + e y + f``
            its y. Of pixel corners: (0, 0) is the outer corner of the first pixel.
        crs: Of the map; anything pyproj understands.

    Raises:
        ValueError: pyproj does not understand the CRS, or all pixels lie in one place.
    """

    def __init__(self, coefficients: Sequence[float], crs: Any) -> None:  # noqa: ANN401 - pyproj's
        self.coefficients = tuple(float(each) for each in coefficients)
        a, b, _, d, e, _ = self.coefficients
        if a * e - b * d == 0 or not all(map(math.isfinite, self.coefficients)):
            msg = f"the transform {self.coefficients} puts all pixels in one line"
            raise ValueError(msg)
        self._to_lonlat = _transformer(crs)

    def to_lonlat(self, points: Points) -> Points:
        """Return longitude and latitude; see GeoTransform."""
        a, b, c, d, e, f = self.coefficients
        x, y = points[..., 0], points[..., 1]
        lon, lat = self._to_lonlat.transform(a * x + b * y + c, d * x + e * y + f)
        # A map in degrees may count on beyond the antimeridian.
        return np.stack([wrapped(np.asarray(lon)), lat], axis=-1)


class ControlPoints:
    """Pixels -> longitude and latitude through ground control points.

    Fitted in space, in metres from the middle of the Earth, where neither the poles nor the
    antimeridian are special. A polynomial of third order carries the curvature of Earth and
    orbit; what it leaves at the points is interpolated linearly between them, so that every
    control point is met exactly.

    Args:
        pixels: (N, 2) x, y in pixels, continuous as in ``Detections``, N of 3 or more.
        places: (N, 2) coordinates in the CRS.
        crs: Of the places.

    Raises:
        ValueError: Too few points, all in one line, or pyproj does not understand the CRS.
    """

    def __init__(self, pixels: Points, places: Points, crs: Any) -> None:  # noqa: ANN401 - pyproj's
        if len(pixels) < 3 or len(pixels) > _MOST_POINTS:  # noqa: PLR2004 - a plane
            msg = f"{len(pixels)} control points; accepted are 3 to {_MOST_POINTS}"
            raise ValueError(msg)
        lon, lat = _transformer(crs).transform(places[:, 0], places[:, 1])
        self._to_space = pyproj.Transformer.from_crs(_GEODETIC, _GEOCENTRIC, always_xy=True)
        in_space = np.stack(self._to_space.transform(lon, lat, np.zeros(len(lon))), axis=-1)
        self._middle = pixels.mean(axis=0)
        self._reach = np.maximum(np.abs(pixels - self._middle).max(axis=0), 1.0)
        scaled = self._scaled(pixels)
        self._powers = _fitting_powers(scaled)
        terms = _terms(scaled, self._powers)
        self._weights = np.linalg.lstsq(terms, in_space, rcond=None)[0]
        rest = in_space - terms @ self._weights
        is_met = bool(np.abs(rest).max() < _NOTHING_M)
        self._rest = None if is_met else _interpolator(scaled, rest)

    def to_lonlat(self, points: Points) -> Points:
        """Return longitude and latitude; see GeoTransform."""
        flat = self._scaled(np.asarray(points, np.float64).reshape(-1, 2))
        in_space = _terms(flat, self._powers) @ self._weights
        if self._rest is not None:
            # Outside the outermost points nothing is known of the rest; the polynomial goes on.
            in_space += np.nan_to_num(self._rest(flat))
        x, y, z = in_space.T
        lon, lat, _ = self._to_space.transform(x, y, z, direction="INVERSE")
        return np.stack([lon, lat], axis=-1).reshape(points.shape)

    def _scaled(self, pixels: Points) -> Points:
        scaled: Points = (pixels - self._middle) / self._reach
        return scaled


def _interpolator(points: Points, values: Points) -> Callable[[Points], Points]:
    from scipy.interpolate import LinearNDInterpolator  # late: 25 MB, for control points alone

    found: Callable[[Points], Points] = LinearNDInterpolator(points, values)
    return found


def wrapped(longitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return longitudes, or differences of longitudes, in [-180, 180)."""
    turned: NDArray[np.float64] = (longitude + _HALF_TURN) % (2 * _HALF_TURN) - _HALF_TURN
    return turned


def pixel_size_m(georeference: GeoTransform, *, height: int, width: int) -> tuple[float, float]:
    """Return height and width of the middle pixel of a scene on the ground, in metres."""
    (steps,) = metres_per_pixel(georeference, np.array([[width / 2, height / 2]]))
    right, down = np.hypot(*steps)
    return float(down), float(right)


def metres_per_pixel(georeference: GeoTransform, places: Points) -> NDArray[np.float64]:
    """Return how steps in pixels move on the ground, at each of some places.

    True lengths and true north there, whatever map the pixels lie on: of a map in degrees the
    columns narrow towards the poles, of Mercator's all pixels do, and the grid of other maps is
    turned against north (meridian convergence).

    Args:
        georeference: Of the scene.
        places: (N, 2) x, y in pixels.

    Returns:
        (N, 2, 2): times a step (x, y) in pixels, metres to the east and to the north.
    """
    half = np.array([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]])
    lonlat = georeference.to_lonlat(np.concatenate([places[:, None] + half, places[:, None]], 1))
    starts, ends = np.broadcast_to(lonlat[:, 4:], lonlat[:, :4].shape), lonlat[:, :4]
    azimuth, _, metres = GEOD.inv(starts[..., 0], starts[..., 1], ends[..., 0], ends[..., 1])
    turned = np.radians(azimuth)
    moved = np.stack([metres * np.sin(turned), metres * np.cos(turned)], axis=-1)  # (N, 4, 2)
    return np.stack([moved[:, 0] - moved[:, 1], moved[:, 2] - moved[:, 3]], axis=-1)


def to_pixels(georeference: GeoTransform, lonlat: Points, *, start: Points) -> Points:
    """Return where places on the Earth lie in a scene: the inverse of ``to_lonlat``.

    Newton's steps on the ground, which any geo-reference allows, control points included.

    Args:
        georeference: Of the scene.
        lonlat: (N, 2) longitude and latitude in degrees.
        start: (2,) x, y in pixels, from where to look; the middle of the scene.

    Returns:
        (N, 2) x, y in pixels; NaN where there is no such pixel.
    """
    found = np.tile(np.asarray(start, np.float64), (len(lonlat), 1))
    missing_px = np.full(len(lonlat), np.inf)
    with np.errstate(all="ignore"):
        for _ in range(_MOST_STEPS):
            here = georeference.to_lonlat(found)
            azimuth, _, metres = GEOD.inv(*here.T, *np.asarray(lonlat, np.float64).T)
            turned = np.radians(azimuth)
            offset = np.stack([metres * np.sin(turned), metres * np.cos(turned)], axis=-1)
            steps = metres_per_pixel(georeference, found)
            determinant = np.linalg.det(steps)
            steps[~(np.abs(determinant) > 0)] = np.nan
            moved = np.einsum("nij,nj->ni", np.linalg.inv(steps), offset)
            found, missing_px = found + moved, np.abs(moved).max(axis=1)
            if not (missing_px > _NEAR_PX).any():
                break
    found[~(missing_px <= _NEAR_PX)] = np.nan
    return found


def distances_m(pairs: Points) -> NDArray[np.float64]:
    """Return the lengths of (N, 2, 2) pairs of longitude and latitude on the ellipsoid."""
    start, end = pairs[:, 0], pairs[:, 1]
    _, _, metres = GEOD.inv(start[:, 0], start[:, 1], end[:, 0], end[:, 1])
    return np.asarray(metres, dtype=np.float64)


def _transformer(crs: Any) -> pyproj.Transformer:  # noqa: ANN401 - pyproj's
    try:
        return pyproj.Transformer.from_crs(crs, WGS84, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        msg = f"the coordinate system {str(crs)[:80]!r} is not understood: {error}"
        raise ValueError(msg) from error


def _fitting_powers(scaled: Points) -> list[tuple[int, int]]:
    """Return the powers of x and y of the highest polynomial that the points determine."""
    for order in (3, 2, 1):
        powers = [(i, j) for i in range(order + 1) for j in range(order + 1 - i)]
        rank = np.linalg.matrix_rank(_terms(scaled, powers), tol=1e-6)
        if rank == len(powers):
            return powers
    raise ValueError("all control points lie in one line")


def _terms(scaled: Points, powers: Sequence[tuple[int, int]]) -> Points:
    x, y = scaled[:, 0], scaled[:, 1]
    return np.stack([x**i * y**j for i, j in powers], axis=1)

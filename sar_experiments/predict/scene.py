"""Scenes read in windows: GeoTIFF, COG, Sentinel-1 measurements, PNG; any size, several threads.

Read are the values of the pixels and where they are data, by ``data.pixels`` as for training (scale
and offset of a band, the file's own number, NaN, an alpha band or a mask), the geo-reference and
the time.

GDAL counts pixels from the outer corner of the first one, as ``Detections`` do: its centre is
(0.5, 0.5). An affine transform and ordinary control points follow that. Sentinel-1 does not: a
control point of a measurement names the index of a line and of a sample, which is the centre of a
pixel (its annotation gives the zero-Doppler time and the slant range of that very sample), so half
a pixel is added there.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from sar_experiments.data.images import DTYPES
from sar_experiments.data.pixels import Reading
from sar_experiments.errors import SceneError
from sar_experiments.geometry import (
    AffineTransform,
    ControlPoints,
    GeoTransform,
    Window,
    pixel_size_m,
)
from sar_experiments.predict.detector import SceneHeader, Tile
from sar_experiments.predict.sources import is_sentinel1, product_of, sentinel1_resolution_m

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sar_experiments.predict.sources import SceneFiles

MOST_CACHE_BYTES = 256 * 2**20
"""Decoded blocks that GDAL keeps at most, of all open files; its default is 5 % of the memory."""

RESOLUTION_TAG = "resolution_m"
"""Of a GeoTIFF's metadata: side of the sensor's resolution cell on the ground, in metres."""

_LEAST_CACHE_BYTES = 16 * 2**20

# Left to itself GDAL takes a file for what its content looks like, and some kinds (VRT, tile
# indexes) make it read further files of this machine or of the network: one driver may try.
_DRIVERS = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG"}
_OTHERWISE = "GTiff"

_TIMES = (
    re.compile(r"(?<!\d)(\d{4})(\d{2})(\d{2})[tT_](\d{2})(\d{2})(\d{2})(?!\d)"),
    re.compile(r"(?<!\d)(\d{4})[-_](\d{2})[-_](\d{2})(?!\d)"),
    re.compile(r"(?<!\d)(20\d{2}|19\d{2})(\d{2})(\d{2})(?!\d)"),
)
_TIME_TAG = re.compile(r"(\d{4})[:-](\d{2})[:-](\d{2})[ T](\d{2}):(\d{2}):(\d{2})")
_DATE_PARTS = 3


class Scene:
    """An open scene; ``read`` may be called from any thread.

    rasterio's handles are not thread safe: every thread opens its own.

    Args:
        source: What is read.
        bands: Which bands of a file of several, from 1; None takes all but alpha.
        nodata: What the network's radiometry calls no data, besides the file's own mark.

    Attributes:
        header: What is known of it.
        block_bytes: Size of the largest piece that is decoded at once.
        row_bytes: Size of a row of pixels, all bands.
        block_rows: Rows of the highest such piece.

    Raises:
        SceneError: A file is missing, cannot be read, or does not fit the others.
    """

    def __init__(
        self,
        source: SceneFiles,
        *,
        bands: Sequence[int] | None = None,
        nodata: float | None = None,
    ) -> None:
        self._files = source.files
        self._own = threading.local()
        self._idle = threading.Condition()
        self._reading = 0
        self._open: list[Any] = []
        rasters = self._rasters()
        self._readings = [_reading(raster, bands, nodata) for raster in rasters]
        self._grays = [_grays(raster) for raster in rasters]
        self.header = replace(
            _header(source, rasters, self._readings),
            numbers=None if bands is None else tuple(bands),
        )
        self.block_bytes = max(_block_bytes(raster) for raster in rasters)
        self.row_bytes: int = sum(_row_bytes(raster) for raster in rasters)
        self.block_rows: int = max(rows for raster in rasters for rows, _ in raster.block_shapes)

    def read(self, window: Window) -> Tile:
        """Return the pixels of a window inside the scene.

        Raises:
            SceneError: The file is cut short or damaged there.
        """
        area = RasterioWindow(window.left, window.top, window.width, window.height)
        parts, masks = [], []
        with self._in_use():
            for number, raster in enumerate(self._rasters()):
                with _NamedErrors(raster.name):
                    values, valid = self._readings[number].read(
                        raster, area, grays=self._grays[number]
                    )
                parts.append(values)
                masks.append(valid)
        stacked = parts[0] if len(parts) == 1 else np.concatenate(parts)
        valid = masks[0] if len(masks) == 1 else np.logical_and.reduce(masks)
        pixels = np.ascontiguousarray(np.moveaxis(stacked, 0, 2))
        return Tile(pixels, valid, window, self.header.name)

    def read_overview(self, *, longest_px: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the first band, averaged down so that no side is longer, and where it is valid.

        Read strip by strip: of a large scene no more is held than one strip.
        """
        height, width = self.header.height, self.header.width
        factor = max(1.0, max(height, width) / longest_px)
        rows, cols = max(1, round(height / factor)), max(1, round(width / factor))
        picture = np.zeros((rows, cols), np.float32)
        valid = np.zeros((rows, cols), bool)
        step = max(1, int(256 / factor))
        raster = self._rasters()[0]
        for start in range(0, rows, step):
            end = min(start + step, rows)
            top, bottom = (round(row * height / rows) for row in (start, end))
            with _NamedErrors(raster.name):
                strip, has_data = self._readings[0].first.read(
                    raster,
                    RasterioWindow(0, top, width, max(1, bottom - top)),
                    grays=self._grays[0],
                    out_shape=(end - start, cols),
                    resampling=Resampling.average if factor > 1 else Resampling.nearest,
                )
            picture[start:end], valid[start:end] = strip[0], has_data
        return picture, valid

    def close(self) -> None:
        """Close the handles of all threads, once none is reading; GDAL would end the process."""
        with self._idle:
            self._idle.wait_for(lambda: not self._reading)
            for raster in self._open:
                raster.close()
            self._open.clear()
            self._own = threading.local()

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        with self._idle:
            self._reading += 1
        try:
            yield
        finally:
            with self._idle:
                self._reading -= 1
                self._idle.notify_all()

    def _rasters(self) -> list[Any]:
        """Return this thread's handles."""
        found: list[Any] | None = getattr(self._own, "rasters", None)
        if found is None:
            found = [_opened(file) for file in self._files]
            self._own.rasters = found
            with self._idle:
                self._open += found
        return found


class _NamedErrors:
    """Turn GDAL's errors into ours, with the file's name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, RasterioError):
            msg = f"{self.name} is cut short or damaged: {error}"
            raise SceneError(msg) from error


def _driver(file: Path) -> str:
    with file.open("rb") as opened:
        start = opened.read(4)
    found = (name for magic, name in _DRIVERS.items() if start.startswith(magic))
    return next(found, _OTHERWISE)


def _block_bytes(raster: Any) -> int:  # noqa: ANN401 - rasterio is untyped
    """Return the size of the largest piece that can be read by itself, decoded."""
    cells = max(rows * cols for rows, cols in raster.block_shapes)
    bands = raster.count if raster.interleaving and raster.interleaving.name == "pixel" else 1
    return int(cells * bands * np.dtype(raster.dtypes[0]).itemsize)


def _row_bytes(raster: Any) -> int:  # noqa: ANN401
    return int(raster.width * raster.count * np.dtype(raster.dtypes[0]).itemsize)


def bound_cache(needed_bytes: int) -> None:
    """Bound the memory that GDAL keeps decoded blocks in, for this process."""
    size_bytes = min(max(needed_bytes, _LEAST_CACHE_BYTES), MOST_CACHE_BYTES)
    rasterio.env.set_gdal_config("GDAL_CACHEMAX", size_bytes)


def _opened(file: Path) -> Any:  # noqa: ANN401 - rasterio is untyped
    if not file.is_file():
        msg = f"{file} is missing"
        raise SceneError(msg)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            return rasterio.open(file, driver=_driver(file))
        except RasterioError as error:
            msg = f"{file} has no readable header: {error}"
            raise SceneError(msg) from error


def _header(source: SceneFiles, rasters: Sequence[Any], readings: Sequence[Reading]) -> SceneHeader:
    first = rasters[0]
    for raster in rasters:
        _check(raster, first)
    georeference, crs = _georeference(first, source.files[0])
    pixel_m = None
    if georeference is not None:
        pixel_m = pixel_size_m(georeference, height=first.height, width=first.width)
    names = [
        raster.descriptions[band - 1] or (kind if len(reading.numbers) == 1 else None) or str(band)
        for raster, reading, kind in zip(
            rasters, readings, source.polarisations or [None] * len(rasters), strict=False
        )
        for band in reading.numbers
    ]
    return SceneHeader(
        name=source.name,
        files=source.files,
        height=first.height,
        width=first.width,
        bands=tuple(names),
        dtype=np.result_type(*(each.dtype(first.dtypes[0]) for each in readings)).name,
        nodata=None if first.nodata is None else float(first.nodata),
        pixel_m=pixel_m,
        resolution_m=_resolution_m(source.files[0], first.tags(), pixel_m),
        georeference=georeference,
        crs=crs,
        time=_time(source.files[0], first.tags()),
    )


def _check(raster: Any, first: Any) -> None:  # noqa: ANN401
    """Refuse what cannot be read, or does not fit the first file."""
    for dtype in raster.dtypes:
        if dtype not in DTYPES:
            is_complex = dtype.startswith("complex")  # Sentinel-1 SLC among them
            hint = "; take the GRD product, or the amplitude |z| first" if is_complex else ""
            msg = f"{raster.name} stores {dtype}; accepted are {', '.join(DTYPES)}{hint}"
            raise SceneError(msg)
    if raster.shape != first.shape or raster.dtypes[0] != first.dtypes[0]:
        msg = (
            f"{raster.name} is {raster.height} x {raster.width} {raster.dtypes[0]}, but"
            f" {first.name} is {first.height} x {first.width} {first.dtypes[0]}; the files of one"
            " scene must agree"
        )
        raise SceneError(msg)


def _reading(raster: Any, bands: Sequence[int] | None, nodata: float | None) -> Reading:  # noqa: ANN401
    outside = [each for each in bands or () if each > raster.count]
    if outside:
        msg = f"predict.bands={list(bands or ())}: {raster.name} has {raster.count} bands"
        raise SceneError(msg)
    try:
        return Reading.of(raster, numbers=bands, nodata=nodata)
    except ValueError as error:
        msg = f"{raster.name}: {error}"
        raise SceneError(msg) from error


def _grays(raster: Any) -> NDArray[np.uint8] | None:  # noqa: ANN401
    """Return (256,) the grays of a PNG that stores numbers of a palette, None for other files.

    As for training; a TIFF's palette colours amplitudes for people, and they are what is read.

    Raises:
        SceneError: The palette is of colours.
    """
    if raster.driver != "PNG" or raster.colorinterp[0] is not ColorInterp.palette:
        return None
    grays = np.zeros(256, np.uint8)
    for number, (red, green, blue, _) in raster.colormap(1).items():
        if not red == green == blue:
            msg = (
                f"{raster.name} stores colours of a palette; accepted are grays (convert it with"
                " gdal_translate -expand gray)"
            )
            raise SceneError(msg)
        grays[number] = red
    return grays


def _georeference(raster: Any, file: Path) -> tuple[GeoTransform | None, str | None]:  # noqa: ANN401
    points, points_crs = raster.gcps
    try:
        if raster.crs and not raster.transform.is_identity:
            crs = raster.crs.to_wkt()
            return AffineTransform(tuple(raster.transform)[:6], crs), raster.crs.to_string()
        if points and points_crs:
            shift = 0.5 if _counts_centres(raster, file) else 0.0
            pixels = np.array([[point.col + shift, point.row + shift] for point in points])
            places = np.array([[point.x, point.y] for point in points])
            return ControlPoints(pixels, places, points_crs.to_wkt()), points_crs.to_string()
    except ValueError as error:
        msg = f"{raster.name}: {error}"
        raise SceneError(msg) from error
    return None, None


def _counts_centres(raster: Any, file: Path) -> bool:  # noqa: ANN401
    """Tell whether control points count from the centre of the first pixel.

    Where the file itself says that its pixels are points, GDAL has shifted them already.
    """
    if raster.tags().get("AREA_OR_POINT") == "Point":
        return False
    described = raster.tags().get("TIFFTAG_IMAGEDESCRIPTION", "")
    return is_sentinel1(file) or described.startswith("Sentinel-1")


def _resolution_m(
    file: Path, tags: dict[str, str], pixel_m: tuple[float, float] | None
) -> float | None:
    """Return the side of a resolution cell: by the file's own tag, or its Sentinel-1 product."""
    if pixel_m is None:
        return None
    try:
        told = float(tags.get(RESOLUTION_TAG, "nan"))
    except ValueError:
        told = float("nan")
    known = told if 0 < told < float("inf") else sentinel1_resolution_m(file, max(pixel_m))
    return None if known is None else max(known, *pixel_m)


def _time(file: Path, tags: dict[str, str]) -> str | None:
    """Return when the scene was acquired: what a name says, else the file's own tag."""
    names = [file.stem, product_of(file) or ""]
    for pattern, name in itertools.product(_TIMES, names):
        found = pattern.search(name)
        if found:
            parts = found.groups()
            date = "-".join(parts[:_DATE_PARTS])
            clock = ":".join(parts[_DATE_PARTS:])
            return f"{date}T{clock}Z" if clock else date
    stamped = _TIME_TAG.match(tags.get("TIFFTAG_DATETIME", ""))
    if stamped is None:
        return None
    parts = stamped.groups()
    return f"{'-'.join(parts[:_DATE_PARTS])}T{':'.join(parts[_DATE_PARTS:])}Z"

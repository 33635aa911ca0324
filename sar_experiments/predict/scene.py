"""Scenes read in windows: GeoTIFF, COG, Sentinel-1 measurements, PNG; any size, several threads.

Read are the pixels as they are stored, what marks no data (the file's own number, NaN, an alpha
band or a mask), the geo-reference and the time. Nothing is rescaled.

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from sar_experiments.data.images import DTYPES
from sar_experiments.errors import SceneError
from sar_experiments.geometry import (
    AffineTransform,
    ControlPoints,
    GeoTransform,
    Window,
    pixel_size_m,
)
from sar_experiments.predict.detector import SceneHeader, Tile
from sar_experiments.predict.sources import is_sentinel1, product_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sar_experiments.predict.sources import SceneFiles

MOST_CACHE_BYTES = 256 * 2**20
"""Decoded blocks that GDAL keeps at most, of all open files; its default is 5 % of the memory."""

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
        has_strips: Whether pieces are as wide as the scene.

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
        self._bands = [_chosen_bands(raster, bands) for raster in rasters]
        self._marks = [_marks(raster, nodata) for raster in rasters]
        self._has_mask = [_has_mask(raster) for raster in rasters]
        self._grays = [_grays(raster) for raster in rasters]
        self.header = _header(source, rasters, self._bands)
        self.block_bytes = max(_block_bytes(raster) for raster in rasters)
        self.row_bytes: int = sum(_row_bytes(raster) for raster in rasters)
        self.block_rows: int = max(rows for raster in rasters for rows, _ in raster.block_shapes)
        self.has_strips = any(raster.block_shapes[0][1] >= raster.width for raster in rasters)

    def read(self, window: Window) -> Tile:
        """Return the pixels of a window inside the scene.

        Raises:
            SceneError: The file is cut short or damaged there.
        """
        parts, masks = [], []
        with self._in_use():
            for number, raster in enumerate(self._rasters()):
                pixels = self._read_bands(number, raster, window)
                parts.append(pixels)
                masks.append(_valid(pixels, self._marks[number]))
                if self._has_mask[number]:
                    masks.append(self._read_mask(raster, window))
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
            with self._named_errors(raster):
                strip = raster.read(
                    self._bands[0][0],
                    window=RasterioWindow(0, top, width, max(1, bottom - top)),
                    out_shape=(end - start, cols),
                    resampling=Resampling.average if factor > 1 else Resampling.nearest,
                )
            strip = strip if self._grays[0] is None else self._grays[0][strip]
            picture[start:end] = strip
            valid[start:end] = _valid(strip[None], self._marks[0])
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

    def _read_bands(self, number: int, raster: Any, window: Window) -> NDArray[Any]:  # noqa: ANN401
        area = RasterioWindow(window.left, window.top, window.width, window.height)
        with self._named_errors(raster):
            pixels: NDArray[Any] = raster.read(self._bands[number], window=area)
        grays = self._grays[number]
        return pixels if grays is None else grays[pixels]

    def _read_mask(self, raster: Any, window: Window) -> NDArray[np.bool_]:  # noqa: ANN401
        area = RasterioWindow(window.left, window.top, window.width, window.height)
        with self._named_errors(raster):
            mask: NDArray[np.bool_] = raster.dataset_mask(window=area) > 0
        return mask

    def _named_errors(self, raster: Any) -> _NamedErrors:  # noqa: ANN401
        return _NamedErrors(raster.name)


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


def _header(
    source: SceneFiles, rasters: Sequence[Any], bands: Sequence[Sequence[int]]
) -> SceneHeader:
    first = rasters[0]
    for raster in rasters:
        _check(raster, first)
    georeference, crs = _georeference(first, source.files[0])
    pixel_m = None
    if georeference is not None:
        pixel_m = pixel_size_m(georeference, height=first.height, width=first.width)
    names = [
        raster.descriptions[band - 1] or (kind if len(chosen) == 1 else None) or str(band)
        for raster, chosen, kind in zip(
            rasters, bands, source.polarisations or [None] * len(rasters), strict=False
        )
        for band in chosen
    ]
    return SceneHeader(
        name=source.name,
        files=source.files,
        height=first.height,
        width=first.width,
        bands=tuple(names),
        dtype=first.dtypes[bands[0][0] - 1],
        nodata=None if first.nodata is None else float(first.nodata),
        pixel_m=pixel_m,
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


def _chosen_bands(raster: Any, bands: Sequence[int] | None) -> list[int]:  # noqa: ANN401
    if bands is None:
        chosen = [
            number
            for number, meaning in enumerate(raster.colorinterp, start=1)
            if meaning is not ColorInterp.alpha
        ]
        return chosen or [1]
    outside = [each for each in bands if each > raster.count]
    if outside:
        msg = f"predict.bands={list(bands)}: {raster.name} has {raster.count} bands"
        raise SceneError(msg)
    return list(bands)


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


def _marks(raster: Any, nodata: float | None) -> list[float]:  # noqa: ANN401
    marks = {mark for mark in (raster.nodata, nodata) if mark is not None}
    return [float(mark) for mark in marks if not np.isnan(mark)]


def _has_mask(raster: Any) -> bool:  # noqa: ANN401
    """Tell whether an alpha band or a mask says where there is no data."""
    flags = raster.mask_flag_enums[0]
    return MaskFlags.per_dataset in flags or MaskFlags.alpha in flags


def _valid(pixels: NDArray[Any], marks: Sequence[float]) -> NDArray[np.bool_]:
    """Return (H, W) for (C, H, W): True where every band has data."""
    valid: NDArray[np.bool_] = np.ones(pixels.shape[1:], bool)
    if np.issubdtype(pixels.dtype, np.floating):
        valid &= np.isfinite(pixels).all(axis=0)
    for mark in marks:
        valid &= (pixels != np.asarray(mark, np.float64).astype(pixels.dtype)).all(axis=0)
    return valid


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

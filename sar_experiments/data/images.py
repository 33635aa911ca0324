"""Image files to arrays and back: PNG, JPEG, TIFF and GeoTIFF, no value changed on the way.

An image is (H, W, C) in the dtype of the file, channels in file order (red, green, blue where
the file is in colour). Nothing is rotated or narrowed to 8 bits, and nothing rescaled save by the
scale and offset that a band of a TIFF says its numbers need (see ``data.pixels``). A file that is
not whole is refused rather than read in part.
"""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import PIL.Image
import rasterio
import rasterio.enums
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from sar_experiments.data.pixels import Mask, Reading, has_data
from sar_experiments.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Image = NDArray[Any]
"""(H, W, C) of one of DTYPES."""

DTYPES = ("uint8", "uint16", "int16", "float32", "float64")
"""What a file may store."""


class ImageMissingError(DatasetError):
    """The file of an image does not exist."""


PNG_SUFFIXES = (".png",)
JPEG_SUFFIXES = (".jpg", ".jpeg")
TIFF_SUFFIXES = (".tif", ".tiff")
SUFFIXES = PNG_SUFFIXES + JPEG_SUFFIXES + TIFF_SUFFIXES
"""File names that can be read, in lower case."""

FOREIGN_SUFFIXES = (".bmp", ".dib", ".gif", ".heic", ".j2k", ".jp2", ".pgm", ".ppm", ".webp")
"""File names of images that cannot be read, and are refused rather than passed over."""

# One setting for all PNG files: the fastest level, as speckle hardly compresses.
_PNG_SETTINGS = [cv2.IMWRITE_PNG_COMPRESSION, 1]

_TILE_PX = 256
_COLOUR = 3  # channels
_GRAY_OR_COLOUR = (1, _COLOUR)


_CHOICE = re.compile(r"\{([^{}/]*,[^{}/]*)\}")


def polarisation_files(name: Path) -> list[Path]:
    """Return the files that a name stands for: ``s1_{vv,vh}.tif`` is s1_vv.tif and s1_vh.tif.

    Several braces in a name vary together: ``{vv,vh}/s1_{vv,vh}.tif`` is two files, not four.
    A name without a list in braces is one file.

    Raises:
        DatasetError: The lists in the braces are not equally long.
    """
    lists = [choice.split(",") for choice in _CHOICE.findall(str(name))]
    if not lists:
        return [Path(name)]
    if len({len(each) for each in lists}) > 1:
        msg = f"{name}: the lists in braces must be equally long, one entry per file"
        raise DatasetError(msg)
    files = []
    for chosen in zip(*lists, strict=True):
        file = str(name)
        for entry in chosen:
            file = _CHOICE.sub(entry.replace("\\", r"\\"), file, count=1)
        files.append(Path(file))
    return files


def with_polarisations(name: str, polarisations: Sequence[str]) -> str:
    """Turn the name of the first polarisation's file into that of all.

    Args:
        name: Such as ``s1_vv.tif``; one with braces already stays as it is.
        polarisations: Such as ``vv`` and ``vh``; the first is looked for in the name, wherever it
            stands, and gives way to ``{vv,vh}``.

    Raises:
        DatasetError: The name does not hold the first one.
    """
    if _CHOICE.search(name):
        return name
    if polarisations[0] not in name:
        msg = (
            f"{name} does not hold {polarisations[0]!r}, the first of"
            f" usecase.polarisations={list(polarisations)}"
        )
        raise DatasetError(msg)
    return name.replace(polarisations[0], "{" + ",".join(polarisations) + "}")


def read_image(path: Path | Sequence[Path]) -> Image:
    """Return the pixels of ``read_pixels`` without where they are data."""
    return read_pixels(path)[0]


def read_pixels(path: Path | Sequence[Path], *, nodata: float | None = None) -> tuple[Image, Mask]:
    """Read one file, or one file per polarisation, and where it has data.

    Alpha is no channel, but says where there is no data; the palette of a PNG is expanded.

    Args:
        path: A file, files of equal size and dtype that are stacked along the channels, or a
            name that stands for several, see ``polarisation_files``.
        nodata: A stored number that marks no data, besides what the file itself says.

    Returns:
        (H, W, C) in the dtype of the file, or floating where a band has a scale, contiguous; and
        (H, W), False where any channel has no data.

    Raises:
        DatasetError: A file is missing, empty, cut short, of an unknown kind or dtype, or does
            not fit the first one.
    """
    if isinstance(path, str | os.PathLike):
        path = polarisation_files(Path(path))
    paths = [Path(each) for each in path]
    if not paths:
        raise DatasetError("the list of files of an image is empty; name one per polarisation")
    images, masks = zip(*(_read_one(each, nodata) for each in paths), strict=True)
    if len(paths) == 1:
        return images[0], masks[0]
    for other, image in zip(paths[1:], images[1:], strict=True):
        _check_match(paths[0], images[0], other, image)
    return np.concatenate(images, axis=2), np.logical_and.reduce(masks)


def image_size(path: Path) -> tuple[int, int, int]:
    """Return height, width and channels, as ``read_image`` would give them, from the header.

    Raises:
        DatasetError: The file is missing, empty, of an unknown kind, or has no readable header.
    """
    first, *others = polarisation_files(Path(path))
    if others:
        height, width, channels = image_size(first)
        return height, width, channels + sum(image_size(other)[2] for other in others)
    path = first
    if _kind(path) == "png":
        with _opened(path).open("rb") as file:
            width, height, _, colour_type = _png_header(path, file.read(_PNG_HEADER.size))
        return height, width, _PNG_CHANNELS[colour_type]
    found = _jpeg_size(path) if _kind(path) == "jpeg" else None
    if found is not None:
        return found
    with _open_raster(path) as raster:
        return raster.height, raster.width, len(_reading(path, raster, None).numbers)


def write_image(path: Path, pixels: Image) -> None:
    """Write a PNG or a TIFF, whole or not at all.

    Args:
        path: The suffix decides. An existing file is replaced.
        pixels: (H, W) or (H, W, C). PNG takes uint8 and uint16 of 1 or 3 channels, TIFF any of
            DTYPES and any number of channels.

    Raises:
        ValueError: The format cannot store such pixels without loss.
    """
    path, pixels = Path(path), _with_channels(pixels)
    suffix = path.suffix.lower()
    if suffix in PNG_SUFFIXES:
        _write_png(path, pixels)
    elif suffix in TIFF_SUFFIXES:
        _write_tiff(path, pixels)
    else:
        accepted = ", ".join(PNG_SUFFIXES + TIFF_SUFFIXES)
        msg = f"{path} must end in one of {accepted} to be written"
        raise ValueError(msg)


def write_geotiff(
    path: Path,
    pixels: Image,
    *,
    transform: tuple[float, float, float, float, float, float],
    crs: str,
    nodata: float | None,
    tags: Mapping[str, str],
) -> None:
    """Write a tiled, deflate-compressed GeoTIFF, whole or not at all.

    Args:
        path: An existing file is replaced.
        pixels: (H, W) or (H, W, C) of one of DTYPES.
        transform: ``a, b, c, d, e, f``: column, row to ``a * column + b * row + c`` (x) and
            ``d * column + e * row + f`` (y); the corner of a pixel, not its centre.
        crs: Such as ``EPSG:32611``.
        nodata: The value that marks no data; None declares none.
        tags: Text that travels with the file.

    Raises:
        ValueError: The dtype is not one of DTYPES.
    """
    profile = {"transform": rasterio.Affine(*transform), "crs": crs, "nodata": nodata}
    _write_tiff(Path(path), _with_channels(pixels), tags, **profile)


# --- Reading ---------------------------------------------------------------------------------


def _read_one(path: Path, nodata: float | None) -> tuple[Image, Mask]:
    kind = _kind(path)
    if kind == "tiff":
        return _read_tiff(path, nodata)
    encoded = _opened(path).read_bytes()
    gray = _check_png(path, encoded) if kind == "png" else _check_jpeg(path, encoded)
    if kind == "jpeg":
        _check_upright(path, encoded)
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        msg = f"{path} cannot be decoded: {error}"
        raise DatasetError(msg) from error
    if pixels is None:
        msg = f"{path} cannot be decoded; it must be a whole {kind.upper()} file"
        raise DatasetError(msg)
    _check_dtype(path, pixels.dtype.name)
    marks = () if nodata is None else (nodata,)
    if pixels.ndim == 2:  # noqa: PLR2004 - rows and columns
        pixels = pixels[:, :, None]
    # OpenCV gives blue, green, red, alpha; gray with alpha comes as colour.
    alpha = pixels[:, :, _COLOUR] if pixels.shape[2] > _COLOUR else None
    colours = pixels[:, :, :1] if gray or pixels.shape[2] == 1 else pixels[:, :, 2::-1]
    colours = np.ascontiguousarray(colours)
    valid = has_data(np.moveaxis(colours, 2, 0), [marks] * colours.shape[2])
    return colours, valid if alpha is None else valid & (alpha > 0)


def _read_tiff(path: Path, nodata: float | None) -> tuple[Image, Mask]:
    with _open_raster(path) as raster:
        for dtype in raster.dtypes:
            _check_dtype(path, dtype)
        _check_stored(path, raster)
        reading = _reading(path, raster, nodata)
        try:
            bands, valid = reading.read(raster)
        except RasterioError as error:
            msg = f"{path} is cut short or damaged: {error}"
            raise DatasetError(msg) from error
    return np.ascontiguousarray(np.moveaxis(bands, 0, 2)), valid


def _check_stored(path: Path, raster: Any) -> None:  # noqa: ANN401 - rasterio is untyped
    """Refuse numbers that are no brightness: single bits, and places in a table of colours."""
    if raster.tags(1, ns="IMAGE_STRUCTURE").get("NBITS") == "1":
        msg = f"{path} stores 1 bit a pixel, a mask and no image; accepted are {', '.join(DTYPES)}"
        raise DatasetError(msg)
    if rasterio.enums.ColorInterp.palette in raster.colorinterp:
        msg = (
            f"{path} stores places in a table of colours (a palette); store the gray values"
            " themselves, for instance by gdal_translate -expand gray"
        )
        raise DatasetError(msg)


def _check_upright(path: Path, encoded: bytes) -> None:
    """Refuse a JPEG that says it is to be shown turned or mirrored.

    Some tools draw boxes on what is shown, others on what is stored; which, the file cannot tell.
    """
    try:
        with PIL.Image.open(io.BytesIO(encoded)) as opened:
            turned = opened.getexif().get(_ORIENTATION, _UPRIGHT)
    except (OSError, SyntaxError):  # damaged: the decoder says so
        return
    if turned != _UPRIGHT:
        msg = (
            f"{path} is to be shown turned (EXIF orientation {turned}), and its boxes may be of"
            " either; store it upright, for instance by exiftran -ai, and look at the boxes with"
            " task=browse"
        )
        raise DatasetError(msg)


_ORIENTATION, _UPRIGHT = 0x0112, 1


def _reading(path: Path, raster: Any, nodata: float | None) -> Reading:  # noqa: ANN401
    try:
        return Reading.of(raster, nodata=nodata)
    except ValueError as error:
        msg = f"{path}: {error}"
        raise DatasetError(msg) from error


@contextmanager
def _open_raster(path: Path) -> Iterator[Any]:
    """Open with GDAL, silent about rasters without coordinates: most chips have none."""
    _opened(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            raster = rasterio.open(path, driver=_DRIVERS[_kind(path)])
        except RasterioError as error:
            msg = f"{path} has no readable header: {error}"
            raise DatasetError(msg) from error
        with raster:
            yield raster


# Nothing else is opened, whatever a file holds: GDAL has drivers that read other files, or hosts.
_DRIVERS = {"tiff": "GTiff", "jpeg": "JPEG", "png": "PNG"}


def _opened(path: Path) -> Path:
    """Return the path of a file that is there and not empty."""
    if not path.is_file():
        msg = f"{path} is missing"
        raise ImageMissingError(msg)
    if path.stat().st_size == 0:
        msg = f"{path} is empty (0 bytes)"
        raise DatasetError(msg)
    return path


def _kind(path: Path) -> str:
    kinds = {"png": PNG_SUFFIXES, "jpeg": JPEG_SUFFIXES, "tiff": TIFF_SUFFIXES}
    for kind, suffixes in kinds.items():
        if path.suffix.lower() in suffixes:
            return kind
    msg = f"{path} must end in one of {', '.join(SUFFIXES)}"
    raise DatasetError(msg)


def _check_dtype(path: Path, dtype: str) -> None:
    if dtype.startswith("complex"):
        msg = f"{path} stores {dtype}; take the amplitude |z| first and store one of"
        msg = f"{msg} {', '.join(DTYPES)}"
        raise DatasetError(msg)
    if dtype not in DTYPES:
        msg = f"{path} stores {dtype}; accepted are {', '.join(DTYPES)}"
        raise DatasetError(msg)


def _check_match(first: Path, expected: Image, path: Path, image: Image) -> None:
    if image.shape[:2] == expected.shape[:2] and image.dtype == expected.dtype:
        return
    msg = (
        f"{path} is {image.shape[0]} x {image.shape[1]} {image.dtype}, but {first} is"
        f" {expected.shape[0]} x {expected.shape[1]} {expected.dtype}; the files of one image"
        " must agree"
    )
    raise DatasetError(msg)


# --- Is it whole? Decoders fill the missing rest of a file with gray and say nothing ------------

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = struct.Struct(">8s4x4sIIBB")  # signature, IHDR, width, height, bits, colour type
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # colour type -> channels without alpha
_PNG_GRAY_WITH_ALPHA = 4
_PNG_CHUNK = struct.Struct(">I4s")
_PNG_CRC = struct.Struct(">I")

_JPEG_SEGMENT = struct.Struct(">HH")  # marker, length with its own two bytes
_JPEG_LENGTH_BYTES = 2
_JPEG_FIRST_MARKER = 0xFFC0
_JPEG_FRAME = struct.Struct(">BHHB")  # bits, height, width, components
_JPEG_FRAMES = frozenset(range(0xFFC0, 0xFFD0)) - {0xFFC4, 0xFFC8, 0xFFCC}  # ITU-T T.81, table B.1
_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


def _png_header(path: Path, encoded: bytes) -> tuple[int, int, int, int]:
    """Return width, height, bits per sample and colour type."""
    if len(encoded) >= _PNG_HEADER.size:
        signature, name, *numbers = _PNG_HEADER.unpack_from(encoded)
        width, height, bits, colour_type = numbers
        if signature == _PNG_SIGNATURE and name == b"IHDR" and colour_type in _PNG_CHANNELS:
            return width, height, bits, colour_type
    msg = f"{path} has no readable header; it must be a PNG file"
    raise DatasetError(msg)


def _check_png(path: Path, encoded: bytes) -> bool:
    """Refuse a PNG with a chunk missing or damaged; tell whether it is gray with alpha."""
    *_, colour_type = _png_header(path, encoded)
    position, name = len(_PNG_SIGNATURE), b""
    while name != b"IEND":
        end = position + _PNG_CHUNK.size
        if end > len(encoded):
            break
        length, name = _PNG_CHUNK.unpack_from(encoded, position)
        checked = memoryview(encoded)[position + 4 : end + length]
        position = end + length + _PNG_CRC.size
        if position > len(encoded):
            break
        if _PNG_CRC.unpack_from(encoded, end + length)[0] != zlib.crc32(checked):
            msg = f"{path} is damaged: the checksum of its part {name!r} does not fit"
            raise DatasetError(msg)
    else:
        return colour_type == _PNG_GRAY_WITH_ALPHA
    msg = f"{path} is cut short after {len(encoded)} bytes; a PNG ends with a part IEND"
    raise DatasetError(msg)


def _jpeg_size(path: Path) -> tuple[int, int, int] | None:
    """Return height, width and channels in a tenth of GDAL's time; None for unusual headers."""
    with _opened(path).open("rb") as file:
        if file.read(len(_JPEG_START)) != _JPEG_START:
            return None
        while len(segment := file.read(_JPEG_SEGMENT.size)) == _JPEG_SEGMENT.size:
            marker, length = _JPEG_SEGMENT.unpack(segment)
            if marker in _JPEG_FRAMES:
                frame = file.read(_JPEG_FRAME.size)
                if len(frame) < _JPEG_FRAME.size:
                    return None
                _, height, width, channels = _JPEG_FRAME.unpack(frame)
                # The four inks of CMYK become three colours.
                return height, width, min(channels, _COLOUR)
            if marker < _JPEG_FIRST_MARKER or length < _JPEG_LENGTH_BYTES:
                return None
            file.seek(length - _JPEG_LENGTH_BYTES, os.SEEK_CUR)
    return None


def _check_jpeg(path: Path, encoded: bytes) -> bool:
    """Refuse a JPEG whose last scan has no end; False, as JPEG knows no alpha."""
    if not encoded.startswith(_JPEG_START):
        msg = f"{path} has no readable header; it must be a JPEG file"
        raise DatasetError(msg)
    # Neither marker can occur inside a scan, and a thumbnail lies before the image's scan.
    if encoded.rfind(_JPEG_END) < encoded.rfind(_JPEG_SCAN):
        msg = f"{path} is cut short after {len(encoded)} bytes; a JPEG ends with the marker FF D9"
        raise DatasetError(msg)
    return False


# --- Writing ---------------------------------------------------------------------------------


def _write_png(path: Path, pixels: Image) -> None:
    channels, dtype = pixels.shape[2], pixels.dtype.name
    if dtype not in {"uint8", "uint16"} or channels not in _GRAY_OR_COLOUR:
        msg = (
            f"{path} cannot hold {channels} channels of {dtype}; a PNG takes 1 or 3 of uint8 or"
            " uint16, a TIFF any"
        )
        raise ValueError(msg)
    ordered = np.ascontiguousarray(pixels[:, :, ::-1])  # OpenCV wants blue first
    _, encoded = cv2.imencode(".png", ordered, _PNG_SETTINGS)
    with _replacing(path) as partial:
        partial.write_bytes(encoded.tobytes())


def _write_tiff(
    path: Path,
    pixels: Image,
    tags: Mapping[str, str] | None = None,
    **profile: Any,  # noqa: ANN401 - rasterio's profile holds values of many types
) -> None:
    height, width, channels = pixels.shape
    if pixels.dtype.name not in DTYPES:
        msg = f"{path} cannot be written as {pixels.dtype}; accepted are {', '.join(DTYPES)}"
        raise ValueError(msg)
    if min(height, width) >= _TILE_PX:
        profile |= {"tiled": True, "blockxsize": _TILE_PX, "blockysize": _TILE_PX}
    profile |= {"driver": "GTiff", "compress": "deflate", "dtype": pixels.dtype.name}
    if channels != _COLOUR:  # else GDAL takes the fourth channel of 8 bits for alpha
        profile |= {"photometric": "MINISBLACK", "alpha": "NO"}
    profile |= {"height": height, "width": width, "count": channels}
    with _replacing(path) as partial, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(partial, "w", **profile) as raster:
            raster.write(np.moveaxis(pixels, 2, 0))
            raster.update_tags(**(tags or {}))


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path`` to write to; renamed to it at the end, removed on failure."""
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _with_channels(pixels: Image) -> Image:
    if pixels.ndim not in (2, 3) or pixels.size == 0:
        msg = f"pixels of shape {pixels.shape} must be (H, W) or (H, W, C) and not empty"
        raise ValueError(msg)
    return pixels.reshape(*pixels.shape[:2], -1)

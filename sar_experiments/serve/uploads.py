"""Files of strangers: kept under a name of ours, of a known kind, never outside the root."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import HTTPException

from sar_experiments.data.images import JPEG_SUFFIXES, PNG_SUFFIXES, SUFFIXES, TIFF_SUFFIXES

if TYPE_CHECKING:
    from starlette.datastructures import UploadFile

# First bytes of a file: classic and BigTIFF of both byte orders, PNG, JPEG. GDAL goes by content,
# not by name, and other kinds (VRT) make it read further files of the server or the network.
_STARTS = {
    TIFF_SUFFIXES: (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    PNG_SUFFIXES: (b"\x89PNG\r\n\x1a\n",),
    JPEG_SUFFIXES: (b"\xff\xd8\xff",),
}
_LONGEST_START = 8
_LONGEST_STEM = 150


def kept_upload(upload: UploadFile, folder: Path) -> Path:
    """Copy an upload into a folder, under a harmless name.

    Raises:
        HTTPException: 415 where it is no TIFF, PNG or JPEG.
    """
    told = Path(upload.filename or "")
    suffix = told.suffix.lower()
    # The name is kept where it is harmless: Sentinel-1's tells the time of the acquisition.
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", told.stem)[:_LONGEST_STEM] or "upload"
    path = folder / f"{stem}{suffix if suffix in SUFFIXES else ''}"
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file, 1 << 20)
    upload.file.close()  # what was spooled is gone before anything is computed
    check_kind(path)
    return path


def check_kind(path: Path) -> None:
    """Refuse what is not, by name and by content, one of the kinds that we read.

    Raises:
        HTTPException: 415, says what is accepted.
    """
    with path.open("rb") as file:
        start = file.read(_LONGEST_START)
    suffix = path.suffix.lower()
    for suffixes, starts in _STARTS.items():
        if suffix in suffixes and start.startswith(starts):
            return
    raise HTTPException(415, f"accepted are TIFF, PNG and JPEG files ({', '.join(SUFFIXES)})")


def path_below(root: Path, wanted: str) -> Path:
    """Return the file that a client means, links resolved.

    Raises:
        HTTPException: 404 where it is no file below the root; the answer does not tell whether
            something lies outside.
    """
    missing = HTTPException(404, f"{wanted!r} is no file below the service's root folder")
    root = root.resolve()
    try:
        path = (root / wanted).resolve()
        is_below = path.is_relative_to(root) and path.is_file()
        is_below = is_below and os.access(path, os.R_OK)
    except (OSError, ValueError) as error:  # too long, unreadable, no name of a file at all
        raise missing from error
    if not is_below:
        raise missing
    return path

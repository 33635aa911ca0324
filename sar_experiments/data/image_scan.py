"""Every image of a dataset, decoded once: is it whole, what is in it, has it been seen before."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_experiments.data.images import (
    ImageMissingError,
    polarisation_files,
    read_pixels,
)
from sar_experiments.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from sar_experiments.data.radiometry import Radiometry

HISTOGRAM_BINS = 64
_COMMIT_EVERY = 500  # images
_MOST_PER_JOB = 64  # so that the progress bar moves, and 100,000 images are no 100,000 futures
_JOBS_PER_WORKER = 16
_KEYS_PER_QUERY = 500


@dataclass(frozen=True, eq=False, slots=True)
class ImageScan:
    """What one image file holds.

    Attributes:
        fault: Why it cannot be used; empty where it can. The rest is then zero.
        is_missing: Whether the fault is that there is no file.
        height: In pixels.
        width: In pixels.
        digest: Of the pixels, the same for copies under other names and in other formats.
        pixels: Valid pixels.
        total: Sum of the encoded pixels in [0, 1], per channel.
        squares: Sum of their squares, per channel.
        histogram: (HISTOGRAM_BINS,) uint32, counts of encoded pixels of all channels in equal
            bins over [0, 1].
    """

    fault: str = ""
    is_missing: bool = False
    height: int = 0
    width: int = 0
    digest: str = ""
    pixels: int = 0
    total: tuple[float, ...] = ()
    squares: tuple[float, ...] = ()
    histogram: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))


def scan_image(path: Path, radiometry: Radiometry) -> ImageScan:
    """Decode one file to its end; a file that cannot be used is a fault, never an exception."""
    try:
        pixels, valid = read_pixels(path, nodata=radiometry.nodata)
        encoded = radiometry.encode(pixels, valid=valid)
    except (DatasetError, OSError) as error:
        sentence = str(error) if str(path) in str(error) else f"{path}: {error}"
        return ImageScan(fault=sentence, is_missing=isinstance(error, ImageMissingError))
    values = encoded.reshape(-1, encoded.shape[2]) if valid.all() else encoded[valid]
    bins = np.minimum(values * HISTOGRAM_BINS, HISTOGRAM_BINS - 1).astype(np.uint8)
    digest = hashlib.blake2b(f"{pixels.shape} {pixels.dtype}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return ImageScan(
        height=pixels.shape[0],
        width=pixels.shape[1],
        digest=digest.hexdigest(),
        pixels=len(values),
        total=tuple(values.sum(axis=0, dtype=np.float64).tolist()),
        squares=tuple(np.square(values, dtype=np.float64).sum(axis=0).tolist()),
        histogram=np.bincount(bins.reshape(-1), minlength=HISTOGRAM_BINS).astype(np.uint32),
    )


def scan_images(
    paths: Sequence[Path],
    radiometry: Radiometry,
    *,
    workers: int,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Path, ImageScan]:
    """Scan many files side by side.

    Decoding, checksums and array arithmetic leave Python's lock, so threads are enough.

    Args:
        paths: Files; each is scanned once.
        radiometry: How pixels are encoded.
        workers: Threads.
        cache: SQLite file with earlier scans; those of files of unchanged size and time and of
            the same radiometry are taken from it. One that cannot be used is done without. An
            interrupted scan goes on from what it holds.
        progress: Called with the number of files done and of all files.
    """
    unique = list(dict.fromkeys(paths))
    with _opened(cache) as store:
        # What is measured here does not depend on the statistics that are set.
        encoding = str(replace(radiometry, mean=(), std=()).to_dict())
        keys = {path: _key(path, encoding) for path in unique}
        known = _known(store, list(keys.values()))
        found = {path: known[keys[path]] for path in unique if keys[path] in known}
        todo = [path for path in unique if path not in found]
        for path, scan in _scanned(todo, radiometry, workers):
            found[path] = scan
            if store is not None and not scan.fault:
                _remember(store, keys[path], scan, commit=len(found) % _COMMIT_EVERY == 0)
            if progress is not None:
                progress(len(found), len(unique))
    return found


def _scanned(
    paths: Sequence[Path], radiometry: Radiometry, workers: int
) -> Iterator[tuple[Path, ImageScan]]:
    workers = max(1, workers)
    size = min(_MOST_PER_JOB, max(1, len(paths) // (workers * _JOBS_PER_WORKER)))
    jobs = [paths[start : start + size] for start in range(0, len(paths), size)]
    pool = ThreadPoolExecutor(workers)
    try:
        scans = pool.map(lambda job: [scan_image(path, radiometry) for path in job], jobs)
        for job, done in zip(jobs, scans, strict=True):
            yield from zip(job, done, strict=True)
    finally:
        pool.shutdown(cancel_futures=True)  # an interruption waits for what was begun alone


def _key(path: Path, encoding: str) -> str:
    try:
        states = [file.stat() for file in polarisation_files(path)]
    except (OSError, DatasetError):
        return f"{path} missing"
    files = " ".join(f"{state.st_size} {state.st_mtime_ns}" for state in states)
    text = f"{path.absolute()} {files} {encoding}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@contextlib.contextmanager
def _opened(cache: Path | None) -> Iterator[sqlite3.Connection | None]:
    if cache is None:
        yield None
        return
    store: sqlite3.Connection | None = None
    with contextlib.suppress(sqlite3.Error, OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        store = sqlite3.connect(cache, timeout=30)
        store.execute(_TABLE)
    try:
        yield store
    finally:
        if store is not None:
            with contextlib.suppress(sqlite3.Error):
                store.commit()
            store.close()


_TABLE = "CREATE TABLE IF NOT EXISTS scans_3 (key TEXT PRIMARY KEY, scan TEXT, histogram BLOB)"


def _known(store: sqlite3.Connection | None, keys: Sequence[str]) -> dict[str, ImageScan]:
    found: dict[str, ImageScan] = {}
    if store is None:
        return found
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        some = keys[start : start + _KEYS_PER_QUERY]
        places = ",".join("?" * len(some))
        query = f"SELECT key, scan, histogram FROM scans_3 WHERE key IN ({places})"
        try:
            rows = store.execute(query, some).fetchall()
        except sqlite3.Error:
            return found
        found |= {key: _from_row(scan, histogram) for key, scan, histogram in rows}
    return found


def _remember(store: sqlite3.Connection, key: str, scan: ImageScan, *, commit: bool) -> None:
    numbers = {name: getattr(scan, name) for name in _KEPT}
    row = (key, json.dumps(numbers), scan.histogram.astype("<u4").tobytes())
    with contextlib.suppress(sqlite3.Error):  # a cache that cannot be written costs time alone
        store.execute("REPLACE INTO scans_3 VALUES (?, ?, ?)", row)
        if commit:
            store.commit()


_KEPT = ("height", "width", "digest", "pixels", "total", "squares")


def _from_row(scan: str, histogram: bytes) -> ImageScan:
    numbers: dict[str, Any] = json.loads(scan)
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in numbers.items()}
    return ImageScan(**plain, histogram=np.frombuffer(histogram, "<u4"))

"""Every image of a dataset, decoded once: is it whole, what is in it, has it been seen before."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_experiments.data.images import polarisation_files, read_image, read_nodata
from sar_experiments.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sar_experiments.data.radiometry import Radiometry

HISTOGRAM_BINS = 64
_COMMIT_EVERY = 500


@dataclass(frozen=True)
class ImageScan:
    """What one image file holds.

    Attributes:
        fault: Why it cannot be used; empty where it can. The rest is then zero.
        height: In pixels.
        width: In pixels.
        digest: Of the file's bytes, the same for copies under other names.
        pixels: Valid pixels per channel.
        total: Sum of the encoded pixels in [0, 1], per channel.
        squares: Sum of their squares, per channel.
        histogram: Counts of encoded pixels of all channels in equal bins over [0, 1].
    """

    fault: str = ""
    height: int = 0
    width: int = 0
    digest: str = ""
    pixels: tuple[int, ...] = ()
    total: tuple[float, ...] = ()
    squares: tuple[float, ...] = ()
    histogram: tuple[int, ...] = ()


def scan_image(path: Path, radiometry: Radiometry) -> ImageScan:
    """Decode one file to its end; a file that cannot be used is a fault, never an exception."""
    try:
        stored, nodata = read_image(path), read_nodata(path)
        encoded = radiometry.encode(stored, nodata=nodata)
        content = b"".join(file.read_bytes() for file in polarisation_files(path))
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    except (DatasetError, OSError) as error:
        return ImageScan(fault=str(error))
    valid = np.broadcast_to(
        radiometry.valid(stored, nodata=nodata).all(axis=2, keepdims=True), encoded.shape
    )
    kept = np.where(valid, encoded, 0.0).astype(np.float64)
    counts, _ = np.histogram(encoded[valid], bins=HISTOGRAM_BINS, range=(0.0, 1.0))
    return ImageScan(
        height=stored.shape[0],
        width=stored.shape[1],
        digest=digest,
        pixels=tuple(valid.sum(axis=(0, 1)).tolist()),
        total=tuple(kept.sum(axis=(0, 1)).tolist()),
        squares=tuple((kept**2).sum(axis=(0, 1)).tolist()),
        histogram=tuple(counts.tolist()),
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
            the same radiometry are taken from it. One that cannot be used is done without.
        progress: Called with the number of files done and of all files.
    """
    unique = list(dict.fromkeys(paths))
    found: dict[Path, ImageScan] = {}
    with _opened(cache) as store, ThreadPoolExecutor(max(1, workers)) as pool:
        keys = {path: _key(path, radiometry) for path in unique}
        known = _known(store, set(keys.values()))
        todo = [path for path in unique if keys[path] not in known]
        found |= {path: known[keys[path]] for path in unique if keys[path] in known}
        done = len(found)
        for path, scan in zip(
            todo, pool.map(lambda p: scan_image(p, radiometry), todo), strict=True
        ):
            found[path] = scan
            done += 1
            if store is not None and not scan.fault:
                _remember(store, keys[path], scan, commit=done % _COMMIT_EVERY == 0)
            if progress is not None:
                progress(done, len(unique))
    return found


def _key(path: Path, radiometry: Radiometry) -> str:
    try:
        states = [file.stat() for file in polarisation_files(path)]
    except (OSError, DatasetError):
        return f"{path} missing"
    files = " ".join(f"{state.st_size} {state.st_mtime_ns}" for state in states)
    # What is measured here does not depend on the statistics that are set.
    encoding = replace(radiometry, mean=(), std=()).to_dict()
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
        store.execute("CREATE TABLE IF NOT EXISTS scans (key TEXT PRIMARY KEY, scan TEXT)")
    try:
        yield store
    finally:
        if store is not None:
            with contextlib.suppress(sqlite3.Error):
                store.commit()
            store.close()


def _known(store: sqlite3.Connection | None, keys: set[str]) -> dict[str, ImageScan]:
    if store is None:
        return {}
    try:
        rows = store.execute("SELECT key, scan FROM scans").fetchall()
    except sqlite3.Error:
        return {}
    return {key: _from_json(scan) for key, scan in rows if key in keys}


def _remember(store: sqlite3.Connection, key: str, scan: ImageScan, *, commit: bool) -> None:
    with contextlib.suppress(sqlite3.Error):  # a cache that cannot be written costs time alone
        store.execute("REPLACE INTO scans VALUES (?, ?)", (key, json.dumps(asdict(scan))))
        if commit:
            store.commit()


def _from_json(text: str) -> ImageScan:
    values: dict[str, Any] = json.loads(text)
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return ImageScan(**plain)

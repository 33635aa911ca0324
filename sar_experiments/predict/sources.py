"""``source=`` -> files of scenes: files, folders, patterns, Sentinel-1 SAFE folders.

Files that differ in the polarisation alone (``scene_vv.tif`` and ``scene_vh.tif``, or the
measurements of a SAFE folder) are one scene.

A Sentinel-1 product is a folder ``S1A_IW_GRDH_….SAFE`` with ``manifest.safe`` and one TIFF per
polarisation in ``measurement`` (Sentinel-1 Product Specification, S1-RS-MDA-52-7441): named
``s1a-iw-grd-vv-START-STOP-ORBIT-TAKE-001.tiff``, in the cloud optimised products of 2023 and later
``…-001-cog.tiff``, and in some archives of the cloud only ``iw-vv.tiff``.
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sar_experiments.errors import SceneError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
"""File names that are taken for scenes, in lower case."""

POLARISATIONS = ("vv", "vh", "hh", "hv")
"""In the order in which a network of fewer channels takes them."""

# A word of its own: scene_VV.tif, s1a-iw-grd-vv-20210105t135116-….tiff, VH_dB.tif.
_POLARISATION = re.compile(r"(?i)(?<![a-z0-9])(vv|vh|hh|hv)(?![a-z0-9])")
# Sentinel-1 numbers the measurements of a product: -001 is vv, -002 vh.
_SENTINEL1 = re.compile(
    r"(?i)^s1[a-z]-(?:iw|ew|wv|s\d)\d?-\w{3}-(?:vv|vh|hh|hv)-.*?(?P<image>-\d{3})(?:-cog)?$"
)
# S1A_IW_GRDH_1SDV_…, s1a-iw-grd-vv-…
_PRODUCT = re.compile(r"(?i)(?<![a-z0-9])s1[a-z][-_](?P<mode>iw|ew|wv|s\d)[-_]grd(?P<kind>[fhm]?)")
# Range and azimuth resolution of ground range products over their pixels, all in metres, by mode
# and class: Sentinel-1 Product Definition, S1-RS-MDA-52-7440, and ESA's technical guide.
_RESOLUTIONS_M = {
    ("sm", "f"): (3.5, 9.0, 9.0),
    ("sm", "h"): (10.0, 23.0, 23.0),
    ("sm", "m"): (40.0, 84.0, 84.0),
    ("iw", "h"): (10.0, 20.0, 22.0),
    ("iw", "m"): (40.0, 88.0, 87.0),
    ("ew", "h"): (25.0, 50.0, 50.0),
    ("ew", "m"): (40.0, 93.0, 87.0),
    ("wv", "m"): (25.0, 52.0, 51.0),
}
_MANIFEST = "manifest.safe"
_MEASUREMENT = "measurement"
_PACKED = (".zip", ".tar", ".tgz", ".gz", ".7z")
_DUAL = 2


@dataclass(frozen=True, slots=True)
class SceneFiles:
    """What one scene is read from.

    Attributes:
        name: Of outputs; unique among the scenes of a prediction.
        files: One, or one per polarisation in the order of the network's channels.
        polarisations: Of the files, in lower case; empty where the names tell none.
    """

    name: str
    files: tuple[Path, ...]
    polarisations: tuple[str, ...]


def find_scenes(
    source: str | Sequence[str],
    *,
    polarisations: Sequence[str] | None = None,
    channels: int | None = None,
) -> list[SceneFiles]:
    """Return the scenes that a source means, in the order of their names.

    Args:
        source: A file, a folder, a pattern, or several of them.
        polarisations: Which files of a scene, in which order; None takes the first ``channels``
            of POLARISATIONS that are there.
        channels: Of the network; None takes all.

    Raises:
        SceneError: Nothing is there, or a scene lacks a polarisation.
    """
    sources = [source] if isinstance(source, str) else list(source)
    files = list(dict.fromkeys(file for each in sources for file in _expanded(each)))
    groups: dict[tuple[Path, str], list[Path]] = {}
    for file in files:
        groups.setdefault((file.parent, _common_name(file)), []).append(file)
    chosen = [_chosen(members, polarisations, channels) for members in groups.values()]
    names = _unique([name for _, name in groups], [folder.name for folder, _ in groups])
    return [SceneFiles(name, *each) for name, each in zip(names, chosen, strict=True)]


def is_sentinel1(file: Path) -> bool:
    """Tell whether a file is named as the measurements of Sentinel-1 products are."""
    return _SENTINEL1.match(file.stem) is not None


def product_of(file: Path) -> str | None:
    """Return the name of the Sentinel-1 product that a file is a measurement of, without .SAFE."""
    folder = file.absolute().parent
    is_product = folder.name == _MEASUREMENT and _is_product(folder.parent)
    return folder.parent.name.removesuffix(".SAFE") if is_product else None


def sentinel1_resolution_m(file: Path, pixel_m: float) -> float | None:
    """Return the mean side of the resolution cell of a Sentinel-1 GRD product; None for others.

    Args:
        file: Named after its product, or inside its folder.
        pixel_m: Side of its pixels, by which measurements that name no class are told apart.
    """
    names = (file.stem, product_of(file) or "")
    found = next((match for match in map(_PRODUCT.search, names) if match), None)
    if found is None:
        return None
    mode, kind = found["mode"].lower(), found["kind"].lower()
    mode = "sm" if mode[0] == "s" else mode
    of_mode = {key[1]: sizes for key, sizes in _RESOLUTIONS_M.items() if key[0] == mode}
    fitting = [of_mode[kind]] if kind in of_mode else list(of_mode.values())
    _, across, along = min(fitting, key=lambda sizes: abs(sizes[0] - pixel_m))
    return (across + along) / 2


def polarisation_of(file: Path) -> str | None:
    """Return the polarisation that a file name tells, in lower case."""
    found = _POLARISATION.findall(file.stem)
    return found[-1].lower() if found else None


def _expanded(source: str) -> Iterator[Path]:
    path = Path(source).expanduser()
    if path.is_dir():
        found = list(_in_folder(path))
        if not found:
            msg = f"source={source} holds no scenes; accepted are {', '.join(SUFFIXES)} and .SAFE"
            packed = [each for each in sorted(path.iterdir()) if each.suffix.lower() in _PACKED]
            if packed:
                msg += f"; {packed[0].name} is packed: unpack it first"
            raise SceneError(msg)
        yield from found
    elif path.is_file():
        yield from _in_folder(path.parent) if path.name == _MANIFEST else [_unpacked(path)]
    else:
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute patterns
        if not matches:
            msg = f"source={source} does not exist, and no file fits it as a pattern"
            raise SceneError(msg)
        for match in map(Path, matches):
            yield from _in_folder(match) if match.is_dir() else [_unpacked(match)]


def _unpacked(file: Path) -> Path:
    """Return the file, unless it is an archive: its tiles would each unpack all before them."""
    if file.suffix.lower() in _PACKED:
        msg = f"{file} is packed; unpack it and name the file or the .SAFE folder inside"
        raise SceneError(msg)
    return file


def _is_product(folder: Path) -> bool:
    return (folder / _MANIFEST).is_file() or folder.suffix.upper() == ".SAFE"


def _in_folder(folder: Path) -> Iterator[Path]:
    measurement = folder / _MEASUREMENT
    if _is_product(folder):
        images = list(_images(measurement)) if measurement.is_dir() else []
        if not images:
            msg = (
                f"{folder} holds no TIFF in a folder {_MEASUREMENT}; accepted are Sentinel-1"
                " products of level 1, GRD"
            )
            raise SceneError(msg)
        yield from images
        return
    yield from _images(folder)
    for product in sorted(folder.glob("*.SAFE")):
        yield from _in_folder(product)


def _images(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in SUFFIXES and file.is_file() and not file.name.startswith("."):
            yield file


def _common_name(file: Path) -> str:
    """Return the stem without what differs between the polarisations of one scene."""
    stem = file.stem
    product = _SENTINEL1.match(stem)
    if product:
        stem = stem[: product.start("image")]
    elif product_of(file) and polarisation_of(file):  # iw-vv.tiff says too little
        return str(product_of(file))
    found = list(_POLARISATION.finditer(stem))
    if not found:
        return file.name  # not the stem: scene.tif beside scene.png are two scenes
    start, end = found[-1].span()
    before, after = stem[:start].rstrip("-_. "), stem[end:].lstrip("-_. ")
    joint = stem[start - 1] if before and start else "_"
    return joint.join(part for part in (before, after) if part) or stem


def _chosen(
    files: list[Path], wanted: Sequence[str] | None, channels: int | None
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return the files of one scene in the order of the channels, and their polarisations."""
    by_kind = {polarisation_of(file): file for file in files}
    if None in by_kind:
        return (files[0],), ()
    there = [each for each in POLARISATIONS if each in by_kind]
    # A single file is taken as it is: it may hold all bands, whatever its name says. But each of
    # Sentinel-1's measurements holds one band.
    is_measurement = is_sentinel1(files[0]) or product_of(files[0]) is not None
    is_free = len(there) == 1 and not is_measurement
    if wanted is None:
        kinds = there[: max(1, channels or len(there))]
        if is_measurement:
            _refuse_half(files[0], kinds, channels)
    else:
        kinds = there if is_free and len(wanted) == 1 else [each.lower() for each in wanted]
    missing = [each for each in kinds if each not in by_kind]
    if missing and not is_free:
        msg = (
            f"{files[0].parent} lacks {', '.join(missing)} of {_common_name(files[0])};"
            f" there are {', '.join(there)}"
        )
        raise SceneError(msg)
    kinds = [each for each in kinds if each in by_kind] or there
    return tuple(by_kind[each] for each in kinds), tuple(kinds)


def _refuse_half(file: Path, kinds: Sequence[str], channels: int | None) -> None:
    """Refuse one polarisation for a network of two; of three, it is the gray image it learnt."""
    if channels == _DUAL and len(kinds) == 1:
        msg = (
            f"{file} is {kinds[0]} alone, and the network takes two polarisations;"
            f" predict.polarisations=[{kinds[0]},{kinds[0]}] shows it the same one twice"
        )
        raise SceneError(msg)


def _unique(names: list[str], folders: list[str]) -> list[str]:
    """Return names without suffix, and where two are alike, with their folder or a number."""
    stems = [Path(n).stem if Path(n).suffix.lower() in SUFFIXES else n for n in names]
    counts = Counter(stems)
    seen: Counter[str] = Counter()
    unique = []
    for stem, folder in zip(stems, folders, strict=True):
        name = f"{folder}_{stem}" if counts[stem] > 1 else stem
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return unique

"""Labels of whole scenes -> boxes in their pixels: GeoJSON and other vector files, or COCO."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyogrio
import pyproj
import shapely

from sar_experiments.data.annotations import XYXY_ABS, BoxAnnotation, Sample, did_you_mean
from sar_experiments.data.coco import read_coco
from sar_experiments.errors import DatasetError
from sar_experiments.geometry import WGS84, Window, to_pixels, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from sar_experiments.predict.detector import SceneHeader, Tile
    from sar_experiments.predict.masks import Masks

logger = logging.getLogger(__name__)

CLASS_COLUMNS = ("class", "class_name", "category", "category_name", "label", "name", "type")
"""Properties of a vector file that may hold the class, the first that is there; any case."""

ASIDE_COLUMNS = ("difficult", "iscrowd")
"""Properties that set an object aside: it is neither a miss nor, where it is found, a hit."""

_VECTOR_TYPES = ("FeatureCollection", "Feature", "GeometryCollection", "Polygon", "MultiPolygon")
_AREAS = ("Polygon", "MultiPolygon", "GeometryCollection")
_LONGEST_DEG, _HIGHEST_DEG = 180.0, 90.0
_FEWEST_PX = 1e-6
_HALF = 0.5


@dataclass(frozen=True, eq=False, slots=True)
class _Label:
    """One object before it is known in which scene it lies.

    Attributes:
        corners: (N, 2) of its outline: longitude and latitude, or x and y in pixels.
        on_earth: Whether they are longitude and latitude.
        class_name: As in the file; empty where the file names none.
        is_aside: Whether the file sets it aside.
        file: Where it stands.
        scene: File name of the image that it belongs to; None for whichever it lies in.
    """

    corners: NDArray[np.float64]
    on_earth: bool
    class_name: str
    is_aside: bool
    file: Path
    scene: str | None = None


def read_truth(
    labels: Sequence[Path],
    headers: Sequence[SceneHeader],
    classes: Sequence[str],
    *,
    any_class: bool = False,
) -> list[Sample]:
    """Return the objects of each scene, in the order of the scenes.

    Objects whose centre lies outside a scene are not its; boxes end at its border.

    Args:
        labels: GeoJSON, GeoPackage, shapefile or another vector file of outlines in any coordinate
            system, for scenes with geo-reference; of outlines in pixels for those without; or
            COCO files, whose boxes are in pixels and whose images are found by file name.
        headers: Of the scenes; image ids count from 1 in their order.
        classes: Of the detector.
        any_class: The detector does not tell classes: all objects are of the first.

    Raises:
        DatasetError: A file cannot be read, names none of the classes, or has no object in any of
            the scenes.
    """
    found = [each for path in labels for each in _labels_in(path, headers)]
    index_of = _class_indices(found, classes, labels, any_class=any_class)
    samples = [_sample(number, header) for number, header in enumerate(headers, start=1)]
    used = 0
    for sample, header in zip(samples, headers, strict=True):
        mine = [each for each in found if _may_be_of(each, header, alone=len(headers) == 1)]
        for label, box in zip(mine, _boxes_in(header, mine), strict=True):
            clipped = _clipped(box, header)
            if clipped is None:
                continue
            used += 1
            kind = index_of[label.class_name]
            if kind is not None:
                sample["annotations"].append(_annotation(clipped, kind, label.is_aside, used))
    if found and not used:
        msg = (
            f"none of the {len(found)} objects of {_listed(labels)} lies in"
            f" {_listed([header.files[0] for header in headers])}; check that both are of one place"
        )
        raise DatasetError(msg)
    if used < len(found):
        logger.info("labels: %d of %d objects lie in the scenes", used, len(found))
    return samples


def set_aside(sample: Sample, read: Callable[[Window], Tile], masks: Masks | None = None) -> Sample:
    """Return the truth without what nobody can be asked to find: neither a miss nor a hit.

    That are objects of whose box more than half has no data, and those in places whose detections
    are filtered.

    Args:
        sample: Truth of a scene.
        read: Reads a window of it.
        masks: Of the scene.
    """
    annotations = sample["annotations"]
    boxes = np.array([each["bbox"] for each in annotations], np.float32).reshape(-1, 4)
    reasons = masks.reasons(boxes) if masks else [""] * len(boxes)
    found: list[BoxAnnotation] = []
    for each, box, reason in zip(annotations, boxes.tolist(), reasons, strict=True):
        left, top, right, bottom = box
        window = Window(
            math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)
        ).clipped(height=sample["height"], width=sample["width"])
        is_seen = not reason and read(window).valid.mean() >= _HALF
        found.append(each if is_seen else {**each, "iscrowd": 1})
    aside = sum(each["iscrowd"] for each in found)
    if aside:
        logger.info(
            "%s: %d of %d objects do not count: set aside by the labels, without data, or masked",
            sample["scene"],
            aside,
            len(found),
        )
    return {**sample, "annotations": found}


def _labels_in(path: Path, headers: Sequence[SceneHeader]) -> list[_Label]:
    if path.suffix.lower() in (".json", ".geojson"):
        content = _json(path)
        if isinstance(content, dict) and "annotations" in content:
            return list(_of_coco(path, headers))
        if not (isinstance(content, dict) and content.get("type") in _VECTOR_TYPES):
            msg = f"{path} is neither GeoJSON nor COCO; labels= takes outlines or boxes of scenes"
            raise DatasetError(msg)
    return list(_of_vectors(path, headers))


def _json(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read as JSON: {error}"
        raise DatasetError(msg) from error


# --- COCO --------------------------------------------------------------------------------------


def _of_coco(path: Path, headers: Sequence[SceneHeader]) -> Iterator[_Label]:
    """Yield the boxes of the images that are among the scenes."""
    dataset = read_coco(path, path.parent, name="labels", classes=None, scene_pattern="")
    for fault in dataset.faults:
        logger.warning("%s", fault.sentence)
    images = {Path(sample["file_name"]).name: sample for sample in dataset.samples}
    for header in headers:
        names = {file.name for file in header.files} | {header.name}
        sample = next((each for name, each in images.items() if name in names), None)
        if sample is None and len(headers) == len(dataset.samples) == 1:
            sample = dataset.samples[0]
        if sample is None:
            msg = (
                f"{path} has no image {header.files[0].name}; it has {_listed(list(images))}"
                f"{did_you_mean(header.files[0].name, images)}"
            )
            raise DatasetError(msg)
        if (sample["height"], sample["width"]) != (header.height, header.width):
            msg = (
                f"{path}: {Path(sample['file_name']).name} has"
                f" {sample['width']} x {sample['height']} px there, and {header.files[0]}"
                f" {header.width} x {header.height}: its boxes are of other pixels"
            )
            raise DatasetError(msg)
        for each in sample["annotations"]:
            left, top, right, bottom = each["bbox"]
            yield _Label(
                np.array([[left, top], [right, bottom]], np.float64),
                on_earth=False,
                class_name=dataset.classes[each["category_id"]],
                is_aside=bool(each["iscrowd"] or each.get("difficult")),
                file=path,
                scene=header.name,
            )


# --- Vector files --------------------------------------------------------------------------------


def _of_vectors(path: Path, headers: Sequence[SceneHeader]) -> Iterator[_Label]:
    meta, shapes, columns = _read_vectors(path)
    on_earth = all(header.georeference is not None for header in headers)
    names = _column(meta, columns, CLASS_COLUMNS)
    aside = _column(meta, columns, ASIDE_COLUMNS)
    to_lonlat = _to_lonlat(path, meta["crs"], shapes) if on_earth else None
    for number, shape in enumerate(shapes):
        if shape is None or shape.is_empty:
            continue
        if shape.geom_type not in _AREAS:
            msg = (
                f"{path}: feature {number} is a {shape.geom_type}; objects are measured by their"
                " area, so labels must be polygons"
            )
            raise DatasetError(msg)
        corners = shapely.get_coordinates(shape)
        if to_lonlat is not None:
            corners = np.stack(to_lonlat.transform(*corners.T), axis=-1)
        yield _Label(
            corners,
            on_earth=to_lonlat is not None,
            class_name="" if names is None or names[number] is None else str(names[number]),
            is_aside=_is_true(None if aside is None else aside[number]),
            file=path,
            scene=None if on_earth or len(headers) == 1 else _scene_named(path, headers),
        )


def _read_vectors(path: Path) -> tuple[dict[str, Any], NDArray[Any], Sequence[NDArray[Any]]]:
    try:
        meta, _, geometries, columns = pyogrio.raw.read(path)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError) as error:
        msg = f"{path} cannot be read as a vector file or as COCO: {error}"
        raise DatasetError(msg) from error
    return meta, shapely.from_wkb(geometries), columns


def _to_lonlat(path: Path, crs: str | None, shapes: NDArray[Any]) -> pyproj.Transformer:
    if crs is None:
        msg = f"{path} tells no coordinate system (a shapefile needs its .prj)"
        raise DatasetError(msg)
    try:
        system = pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.ProjError as error:
        msg = f"{path}: its coordinate system {crs[:80]!r} is not understood: {error}"
        raise DatasetError(msg) from error
    reach = np.abs(shapely.get_coordinates(shapes)).max(axis=0, initial=0.0)
    if system.is_geographic and (reach > (2 * _LONGEST_DEG, _HIGHEST_DEG)).any():
        msg = (
            f"{path} is in degrees by its coordinate system ({crs}), but holds {reach.max():g}: for"
            " a scene with geo-reference outlines in pixels must be COCO, and outlines on a map"
            " must name their coordinate system, as GeoPackage does"
        )
        raise DatasetError(msg)
    return pyproj.Transformer.from_crs(system, WGS84, always_xy=True)


def _column(
    meta: dict[str, Any], columns: Sequence[NDArray[Any]], wanted: Sequence[str]
) -> NDArray[Any] | None:
    """Return the first of the wanted columns that is there, whatever its case; None without."""
    fields = {str(name).lower(): number for number, name in enumerate(meta["fields"])}
    return next((columns[fields[name]] for name in wanted if name in fields), None)


def _is_true(value: object) -> bool:
    return str(value).strip().lower() in ("1", "1.0", "true", "yes")


def _scene_named(path: Path, headers: Sequence[SceneHeader]) -> str:
    """Return the scene that a file of outlines in pixels is named after."""
    for header in headers:
        if path.stem in (header.name, header.files[0].stem):
            return header.name
    msg = (
        f"{path} holds pixels of a scene without geo-reference, but of which: name it after its"
        f" scene, such as {headers[0].name}{path.suffix}, or give one scene"
    )
    raise DatasetError(msg)


# --- Classes and places ------------------------------------------------------------------------


def _class_indices(
    found: Sequence[_Label], classes: Sequence[str], labels: Sequence[Path], *, any_class: bool
) -> dict[str, int | None]:
    """Return class name -> index; None for those that the detector does not know."""
    counts = Counter(each.class_name for each in found)
    if any_class:
        return dict.fromkeys(counts, 0)
    by_name = {name: index for index, name in enumerate(classes)}
    index_of: dict[str, int | None] = {name: by_name.get(name) for name in counts}
    if "" in counts and len(classes) == 1:
        index_of[""] = 0
    unknown = {name: counts[name] for name, index in index_of.items() if index is None}
    told = ", ".join(f"{name or 'no class'} ({count})" for name, count in unknown.items())
    if unknown and len(unknown) == len(counts):
        msg = (
            f"{_listed(labels)} names {told}, but the detector finds {', '.join(classes)}; a vector"
            f" file names the class in a property {', '.join(CLASS_COLUMNS)}"
        )
        raise DatasetError(msg)
    if unknown:
        logger.warning("labels: left out, as the detector does not know them: %s", told)
    return index_of


def _may_be_of(label: _Label, header: SceneHeader, *, alone: bool) -> bool:
    return alone or label.scene is None or label.scene == header.name


def _boxes_in(header: SceneHeader, labels: Sequence[_Label]) -> NDArray[np.float64]:
    """Return (N, 4) boxes around outlines in pixels of a scene; NaN where they are far from it."""
    if not labels:
        return np.zeros((0, 4))
    counts = [len(each.corners) for each in labels]
    corners = np.concatenate([each.corners for each in labels])
    on_earth = np.repeat([each.on_earth for each in labels], counts)
    if header.georeference is not None and on_earth.any():
        corners[on_earth] = _nearby_pixels(header, corners[on_earth])
    starts = np.cumsum([0, *counts[:-1]])
    low, high = (each.reduceat(corners, starts, axis=0) for each in (np.minimum, np.maximum))
    return np.concatenate([low, high], axis=1)


def _nearby_pixels(header: SceneHeader, lonlat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N, 2) pixels; NaN far outside the scene, where control points mean nothing."""
    assert header.georeference is not None
    height, width = header.height, header.width
    xs, ys = np.meshgrid(np.linspace(0, width, 9), np.linspace(0, height, 9))
    seen = header.georeference.to_lonlat(np.stack([xs, ys], axis=-1).reshape(-1, 2))
    middle = np.array([width / 2, height / 2])
    centre = header.georeference.to_lonlat(middle)
    away = np.stack([wrapped(lonlat[:, 0] - centre[0]), lonlat[:, 1] - centre[1]], axis=-1)
    reach = np.abs(np.stack([wrapped(seen[:, 0] - centre[0]), seen[:, 1] - centre[1]], axis=-1))
    near = (np.abs(away) <= 1.5 * reach.max(axis=0)).all(axis=1)
    pixels = np.full(lonlat.shape, np.nan)
    pixels[near] = to_pixels(header.georeference, lonlat[near], start=middle)
    return pixels


def _clipped(box: NDArray[np.float64], header: SceneHeader) -> list[float] | None:
    """Return the box inside a scene; None where its centre lies outside or it has no area."""
    left, top, right, bottom = box.tolist()
    x, y = (left + right) / 2, (top + bottom) / 2
    if not (0 <= x < header.width and 0 <= y < header.height):  # NaN too
        return None
    left, right = max(0.0, left), min(float(header.width), right)
    top, bottom = max(0.0, top), min(float(header.height), bottom)
    if min(right - left, bottom - top) < _FEWEST_PX:
        return None
    return [left, top, right, bottom]


def _sample(number: int, header: SceneHeader) -> Sample:
    return Sample(
        file_name=str(header.files[0]),
        image_id=number,
        height=header.height,
        width=header.width,
        scene=header.name,
        annotations=[],
    )


def _annotation(box: list[float], kind: int, is_aside: bool, number: int) -> BoxAnnotation:
    left, top, right, bottom = box
    return BoxAnnotation(
        bbox=box,
        bbox_mode=XYXY_ABS,
        category_id=kind,
        iscrowd=int(is_aside),
        id=number,
        area=(right - left) * (bottom - top),
    )


def _listed(names: Sequence[object]) -> str:
    shown = ", ".join(str(each) for each in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"  # noqa: PLR2004

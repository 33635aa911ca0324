"""Annotation files -> dataset dicts in Detectron2's form, all classes in one order."""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np

from sar_experiments import run_folder
from sar_experiments.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

XYXY_ABS = 0
"""Detectron2's BoxMode.XYXY_ABS, without importing it."""


class BoxAnnotation(TypedDict):
    """One object of an image.

    Keys:
        bbox: Left, top, right, bottom in pixels, continuous; as in the file, unclipped.
        bbox_mode: Always XYXY_ABS.
        category_id: Index into the dataset's classes.
        iscrowd: 1 for a group that is neither learnt nor counted.
        id: Of the annotation in its file.
        area: In square pixels, as in the file.
        segmentation: Polygons x0, y0, x1, y1, ... in pixels, where the file has them.
    """

    bbox: list[float]
    bbox_mode: int
    category_id: int
    iscrowd: int
    id: int
    area: float
    segmentation: NotRequired[list[list[float]]]


class Sample(TypedDict):
    """One image with its objects.

    Keys:
        file_name: Path of the image.
        image_id: Of the image in its annotation file.
        height: In pixels, as annotated.
        width: Likewise.
        scene: What the image was cut from; images of a scene stay on one side of a split.
        annotations: Its objects; empty for an image without any.
    """

    file_name: str
    image_id: int
    height: int
    width: int
    scene: str
    annotations: list[BoxAnnotation]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Annotated images with one list of classes.

    Attributes:
        name: What it is called in messages.
        samples: The images, in the order of the file.
        classes: Class names; ``category_id`` is an index into them.
        images: Folder of the images.
        source: Annotation file.
    """

    name: str
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    images: Path
    source: Path

    def class_counts(self) -> dict[str, int]:
        """Return class -> number of objects, crowds included."""
        counts = Counter(a["category_id"] for s in self.samples for a in s["annotations"])
        return {name: counts[index] for index, name in enumerate(self.classes)}

    def empty_share(self) -> float:
        """Return the share of images without objects, in [0, 1]."""
        empty = sum(not sample["annotations"] for sample in self.samples)
        return empty / max(1, len(self.samples))


def read_coco(
    annotations: Path,
    images: Path,
    *,
    name: str,
    classes: Sequence[str] | None,
    scene_pattern: str,
) -> Dataset:
    """Read a COCO file.

    Categories are matched by name, so that files with different ids agree. Boxes stay as they
    are; data/checks.py finds those that are broken.

    Args:
        annotations: JSON file.
        images: Folder that its file names are relative to.
        name: What the dataset is called in messages.
        classes: Class names in the wanted order; None takes the file's, by ascending id.
        scene_pattern: Regular expression whose group ``scene`` names an image's scene.

    Raises:
        DatasetError: The file breaks its contract; says where and what is accepted.
    """
    if not images.is_dir():
        msg = f"{images} is no folder; it should hold the images of {annotations}"
        raise DatasetError(msg)
    content = _read_json(annotations)
    images_in_file = _records(
        content, "images", ("id", "file_name", "height", "width"), annotations
    )
    objects = _records(
        content,
        "annotations",
        ("id", "image_id", "category_id", "bbox"),
        annotations,
        may_be_empty=True,
    )
    categories = _records(content, "categories", ("id", "name"), annotations)
    for key, records in (("images", images_in_file), ("annotations", objects)):
        _refuse_repeats((record["id"] for record in records), f"{key}[].id", annotations)
    _refuse_repeats((r["file_name"] for r in images_in_file), "images[].file_name", annotations)
    index_of, names = _class_indices(categories, objects, classes, annotations)
    by_image = _objects_by_image(objects, images_in_file, index_of, annotations)
    pattern = re.compile(scene_pattern)
    samples = tuple(
        Sample(
            file_name=str(images / record["file_name"]),
            image_id=int(record["id"]),
            height=int(record["height"]),
            width=int(record["width"]),
            scene=_scene_of(record, pattern),
            annotations=by_image.get(record["id"], []),
        )
        for record in images_in_file
    )
    return Dataset(name, samples, names, images, annotations)


def read_dataset(
    annotations: Path,
    images: Path,
    *,
    name: str,
    classes: Sequence[str] | None,
    scene_pattern: str,
) -> Dataset:
    """Read annotations in the format that the path shows: a JSON file is COCO.

    Raises:
        DatasetError: The format is unknown, or the file breaks its contract.
    """
    if annotations.suffix.lower() != ".json":
        msg = f"{annotations} is in no known format; accepted is a COCO file, ending in .json"
        raise DatasetError(msg)
    return read_coco(annotations, images, name=name, classes=classes, scene_pattern=scene_pattern)


def split_by_scene(dataset: Dataset, *, val_share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split into training and validation by whole scenes, the same on every machine.

    Chips of one scene overlap or share their sea state: a split through a scene leaks, and the
    validation looks better than it is.

    Args:
        dataset: What to split.
        val_share: Share of the images that validates, as nearly as whole scenes allow.
        seed: Another seed, another split.

    Raises:
        DatasetError: There is only one scene.
    """
    sizes = Counter(sample["scene"] for sample in dataset.samples)
    if len(sizes) < 2:  # noqa: PLR2004 - one for each side
        msg = (
            f"{dataset.source} holds only the scene {next(iter(sizes), None)!r}, which cannot be"
            " split; set usecase.val.images and usecase.val.annotations, or usecase.scene_pattern"
        )
        raise DatasetError(msg)
    order = np.random.default_rng(seed).permutation(len(sizes))
    scenes = [sorted(sizes)[index] for index in order]
    wanted = val_share * len(dataset.samples)
    chosen: set[str] = set()
    count = 0
    for scene in scenes:
        is_last_of_train = len(chosen) == len(scenes) - 1
        if not is_last_of_train and abs(count + sizes[scene] - wanted) < abs(count - wanted):
            chosen.add(scene)
            count += sizes[scene]
    chosen = chosen or {min(scenes, key=lambda scene: sizes[scene])}
    train = tuple(sample for sample in dataset.samples if sample["scene"] not in chosen)
    val = tuple(sample for sample in dataset.samples if sample["scene"] in chosen)
    parts = replace(dataset, name="train", samples=train), replace(dataset, name="val", samples=val)
    for part in parts:
        missing = [name for name, objects in part.class_counts().items() if not objects]
        if missing:
            logger.warning("%s has no object of class %s", part.name, ", ".join(missing))
    return parts


def limit_empty(dataset: Dataset, max_share: float, seed: int) -> Dataset:
    """Return the dataset with at most ``max_share`` of its images without objects."""
    empty = [i for i, sample in enumerate(dataset.samples) if not sample["annotations"]]
    filled = len(dataset.samples) - len(empty)
    allowed = len(empty) if max_share >= 1 else int(max_share * filled / (1 - max_share))
    if len(empty) <= allowed:
        return dataset
    order = np.random.default_rng(seed).permutation(len(empty))
    left_out = {empty[index] for index in order[allowed:]}
    logger.info("%s: %d images without objects left out", dataset.name, len(left_out))
    kept = tuple(s for index, s in enumerate(dataset.samples) if index not in left_out)
    return replace(dataset, samples=kept)


def write_coco(dataset: Dataset, path: Path) -> None:
    """Write a COCO file that ``read_coco`` reads back the same, given the same image folder."""
    content = {
        "info": {"description": f"{dataset.name} of {dataset.source}"},
        "images": [_image_record(sample, dataset.images) for sample in dataset.samples],
        "annotations": [
            _object_record(sample, annotation)
            for sample in dataset.samples
            for annotation in sample["annotations"]
        ],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(dataset.classes)],
    }
    run_folder.write_json(path, content)


# --- COCO ----------------------------------------------------------------------------------------


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"{path} does not exist"
        raise DatasetError(msg) from error
    except (ValueError, OSError) as error:
        msg = f"{path} cannot be read as JSON: {error}"
        raise DatasetError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path} holds a {type(content).__name__}; a COCO file holds an object"
        raise DatasetError(msg)
    return content


def _records(
    content: Mapping[str, Any],
    key: str,
    needed: Sequence[str],
    path: Path,
    *,
    may_be_empty: bool = False,
) -> list[dict[str, Any]]:
    records = content.get(key)
    if not isinstance(records, list) or not (records or may_be_empty):
        found = ", ".join(map(str, content)) or "nothing"
        msg = f"{path} has no list '{key}', which a COCO file needs (found: {found})"
        raise DatasetError(msg)
    for position, record in enumerate(records):
        missing = [name for name in needed if not isinstance(record, dict) or name not in record]
        if missing:
            msg = f"{path}: {key}[{position}] lacks {', '.join(missing)}"
            raise DatasetError(msg)
    return records


def _refuse_repeats(values: Iterable[Any], key: str, path: Path) -> None:
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        msg = f"{path}: {key} {repeated[0]!r} stands there more than once"
        more = f" (and {len(repeated) - 1} others)" if len(repeated) > 1 else ""
        raise DatasetError(msg + more)


def _class_indices(
    categories: Sequence[Mapping[str, Any]],
    objects: Sequence[Mapping[str, Any]],
    classes: Sequence[str] | None,
    path: Path,
) -> tuple[dict[Any, int], tuple[str, ...]]:
    """Return category id -> class index, and the class names."""
    _refuse_repeats((each["id"] for each in categories), "categories[].id", path)
    _refuse_repeats((each["name"] for each in categories), "categories[].name", path)
    name_of = {each["id"]: str(each["name"]) for each in sorted(categories, key=lambda c: c["id"])}
    names = tuple(name_of.values()) if classes is None else tuple(classes)
    used = {each["category_id"] for each in objects}
    for name in names:
        if name not in name_of.values():
            close = difflib.get_close_matches(name, list(name_of.values()), 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            known = ", ".join(name_of.values())
            msg = f"usecase.classes names {name!r}, which {path} does not have{hint} ({known})"
            raise DatasetError(msg)
    foreign = sorted(name for i, name in name_of.items() if i in used and name not in names)
    if foreign:
        msg = (
            f"{path} has objects of class {', '.join(foreign)}, which usecase.classes"
            f" ({', '.join(names)}) does not name"
        )
        raise DatasetError(msg)
    unknown = sorted(used - name_of.keys())
    if unknown:
        msg = f"{path}: category_id {unknown[0]} is none of the categories ({sorted(name_of)})"
        raise DatasetError(msg)
    return {i: names.index(name) for i, name in name_of.items() if name in names}, names


def _objects_by_image(
    objects: Sequence[Mapping[str, Any]],
    images: Sequence[Mapping[str, Any]],
    index_of: Mapping[Any, int],
    path: Path,
) -> dict[Any, list[BoxAnnotation]]:
    by_image: dict[Any, list[BoxAnnotation]] = {record["id"]: [] for record in images}
    for position, record in enumerate(objects):
        if record["image_id"] not in by_image:
            image = record["image_id"]
            msg = f"{path}: annotations[{position}] is of image_id {image}, which no image has"
            raise DatasetError(msg)
        by_image[record["image_id"]].append(_annotation(record, index_of, position, path))
    return by_image


def _annotation(
    record: Mapping[str, Any], index_of: Mapping[Any, int], position: int, path: Path
) -> BoxAnnotation:
    try:
        left, top, width, height = (float(value) for value in record["bbox"])
    except (TypeError, ValueError) as error:
        box = f"annotations[{position}].bbox={record['bbox']!r}"
        msg = f"{path}: {box} must be four numbers: x, y, width, height"
        raise DatasetError(msg) from error
    annotation = BoxAnnotation(
        bbox=[left, top, left + width, top + height],
        bbox_mode=XYXY_ABS,
        category_id=index_of[record["category_id"]],
        iscrowd=int(record.get("iscrowd", 0)),
        id=int(record["id"]),
        area=float(record.get("area", width * height)),
    )
    outline = record.get("segmentation")
    if isinstance(outline, list) and outline:
        annotation["segmentation"] = outline
    return annotation


def _scene_of(record: Mapping[str, Any], pattern: re.Pattern[str]) -> str:
    if "scene" in record:
        return str(record["scene"])
    stem = str(record["file_name"]).rpartition(".")[0]
    match = pattern.fullmatch(stem.rpartition("/")[2]) if pattern.pattern else None
    return match["scene"] if match else stem


def _image_record(sample: Sample, images: Path) -> dict[str, Any]:
    name = sample["file_name"].removeprefix(f"{images}/")
    keys = {"id": sample["image_id"], "height": sample["height"], "width": sample["width"]}
    return {**keys, "file_name": name, "scene": sample["scene"]}


def _object_record(sample: Sample, annotation: BoxAnnotation) -> dict[str, Any]:
    left, top, right, bottom = annotation["bbox"]
    record: dict[str, Any] = {
        "id": annotation["id"],
        "image_id": sample["image_id"],
        "category_id": annotation["category_id"] + 1,
        "bbox": [left, top, right - left, bottom - top],
        "area": annotation["area"],
        "iscrowd": annotation["iscrowd"],
    }
    if "segmentation" in annotation:
        record["segmentation"] = annotation["segmentation"]
    return record

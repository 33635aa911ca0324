"""COCO files -> Dataset, and back."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeGuard

from sar_experiments import run_folder
from sar_experiments.data.annotations import (
    XYXY_ABS,
    BoxAnnotation,
    Dataset,
    Fault,
    Sample,
    did_you_mean,
    scene_of,
)
from sar_experiments.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_POLYGON_NUMBERS = 6  # three corners


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
    are; data/checks.py finds those that are broken. A record that cannot be used is left out and
    becomes a fault of the dataset.

    Args:
        annotations: JSON file.
        images: Folder that its file names are relative to.
        name: What the dataset is called in messages.
        classes: Class names in the wanted order; None takes the file's, by ascending id.
        scene_pattern: Regular expression whose group ``scene`` names an image's scene.

    Raises:
        DatasetError: The file as a whole breaks its contract; says where and what is accepted.
    """
    if not images.is_dir():
        msg = f"{images} is no folder; it should hold the images of {annotations}"
        raise DatasetError(msg)
    content = _read_json(annotations)
    reader = _Reader(annotations, classes)
    reader.read_categories(_list(content, "categories", annotations))
    reader.read_images(_list(content, "images", annotations), images, re.compile(scene_pattern))
    reader.read_objects(_list(content, "annotations", annotations, may_be_empty=True))
    samples = tuple(reader.samples.values())
    if not samples:
        msg = f"{annotations} has no image that can be used; the first: {reader.faults[0].sentence}"
        raise DatasetError(msg)
    return Dataset(name, samples, reader.names, images, annotations, tuple(reader.faults))


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
    try:  # on one line: indented JSON of 100,000 images takes half a minute
        run_folder.write_atomically(path, json.dumps(content, allow_nan=False) + "\n")
    except ValueError:  # NaN, which JSON does not have
        run_folder.write_json(path, content)


# --- Reading -------------------------------------------------------------------------------------


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


def _list(
    content: Mapping[str, Any], key: str, path: Path, *, may_be_empty: bool = False
) -> list[Any]:
    records = content.get(key)
    if not isinstance(records, list) or not (records or may_be_empty):
        found = ", ".join(map(str, content)) or "nothing"
        msg = f"{path} has no list '{key}', which a COCO file needs (found: {found})"
        raise DatasetError(msg)
    return records


class _BrokenError(Exception):
    """A record cannot be used: kind of fault, and what is wrong with the record."""

    def __init__(self, code: str, what: str) -> None:
        super().__init__(code, what)
        self.code, self.what = code, what


class _Reader:
    """Reads the three lists of a COCO file one record at a time, collecting what is wrong."""

    def __init__(self, path: Path, classes: Sequence[str] | None) -> None:
        self.path = path
        self.classes = classes
        self.faults: list[Fault] = []
        self.samples: dict[int, Sample] = {}
        self.names: tuple[str, ...] = ()
        self.category_names: dict[int, str] = {}
        self.object_ids: set[int] = set()
        self.left_out: set[int] = set()

    def read_categories(self, records: list[Any]) -> None:
        """Take over the classes, which must be right as a whole.

        Raises:
            DatasetError: A category is broken or repeated, or a wanted class is missing.
        """
        for position, record in enumerate(records):
            try:
                number = _number_of(_fields(record), "id")
                class_name = str(_value(record, "name"))
            except _BrokenError as broken:
                msg = f"{self.path}: categories[{position}] {broken.what}"
                raise DatasetError(msg) from broken
            repeated = {"id": number in self.category_names}
            repeated["name"] = class_name in self.category_names.values()
            for key in (key for key, is_repeated in repeated.items() if is_repeated):
                msg = f"{self.path}: categories[].{key} {record[key]!r} stands there more than once"
                raise DatasetError(msg)
            self.category_names[number] = class_name
        known = [self.category_names[number] for number in sorted(self.category_names)]
        self.names = tuple(known if self.classes is None else self.classes)
        for missing in (each for each in self.names if each not in known):
            msg = (
                f"usecase.classes names {missing!r}, which {self.path} does not have"
                f"{did_you_mean(missing, known)} ({', '.join(known)})"
            )
            raise DatasetError(msg)

    def read_images(self, records: list[Any], folder: Path, pattern: re.Pattern[str]) -> None:
        """Take over the images that can be used."""
        files: set[str] = set()
        for position, record in enumerate(records):
            try:
                sample = self._sample(_fields(record), folder, pattern, files)
            except _BrokenError as broken:
                self._fault(f"images[{position}]", broken)
                continue
            self.samples[sample["image_id"]] = sample
            files.add(sample["file_name"])

    def read_objects(self, records: list[Any]) -> None:
        """Take over the objects that can be used, each to its image."""
        for position, record in enumerate(records):
            place = f"annotations[{position}]"
            try:
                image_id, annotation = self._annotation(_fields(record))
            except _BrokenError as broken:
                self._fault(place, broken)
                continue
            self.object_ids.add(annotation["id"])
            self.samples[image_id]["annotations"].append(annotation)
            try:
                outline = _outline(record)
            except _BrokenError as broken:
                self._fault(place, broken, severity="warning")
                continue
            if outline:
                annotation["segmentation"] = outline

    def _fault(self, place: str, broken: _BrokenError, severity: str = "error") -> None:
        sentence = f"{self.path}: {place} {broken.what}"
        self.faults.append(Fault(broken.code, str(self.path), sentence, severity))

    def _sample(
        self, record: Mapping[str, Any], folder: Path, pattern: re.Pattern[str], files: set[str]
    ) -> Sample:
        number = _number_of(record, "id")
        if number in self.samples:
            raise _BrokenError("image id twice", f"repeats id {number}")
        self.left_out.add(number)
        name = _value(record, "file_name")
        if not isinstance(name, str) or not name:
            raise _BrokenError("image record broken", f"has file_name={name!r}, no name")
        if str(folder / name) in files:
            raise _BrokenError("image file twice", f"repeats file_name {name!r}")
        height, width = (_number_of(record, side) for side in ("height", "width"))
        if min(height, width) < 1:
            size = f"width={width} and height={height}"
            raise _BrokenError("image record broken", f"has {size}, which must be above 0")
        self.left_out.discard(number)
        return Sample(
            file_name=str(folder / name),
            image_id=number,
            height=height,
            width=width,
            scene=str(record.get("scene") or scene_of(name.rpartition(".")[0], pattern)),
            annotations=[],
        )

    def _annotation(self, record: Mapping[str, Any]) -> tuple[int, BoxAnnotation]:
        number, image_id = _number_of(record, "id"), _number_of(record, "image_id")
        if number in self.object_ids:
            raise _BrokenError("annotation id twice", f"repeats id {number}")
        if image_id in self.left_out:
            raise _BrokenError("image left out", f"is of image_id {image_id}, which cannot be used")
        if image_id not in self.samples:
            raise _BrokenError("image unknown", f"is of image_id {image_id}, which no image has")
        category_id = self._class_index(_number_of(record, "category_id"))
        left, top, width, height = _box(_value(record, "bbox"))
        area = record.get("area")
        annotation = BoxAnnotation(
            bbox=[left, top, left + width, top + height],
            bbox_mode=XYXY_ABS,
            category_id=category_id,
            iscrowd=int(bool(record.get("iscrowd"))),
            id=number,
            area=float(area) if _is_number(area) else width * height,
        )
        if record.get("difficult"):
            annotation["difficult"] = 1
        return image_id, annotation

    def _class_index(self, category_id: int) -> int:
        if category_id not in self.category_names:
            known = f"none of the categories ({sorted(self.category_names)})"
            raise _BrokenError("class unknown", f"has category_id {category_id}, which is {known}")
        name = self.category_names[category_id]
        if name not in self.names:
            listed = ", ".join(self.names)
            what = f"is of class {name}, which usecase.classes ({listed}) does not name"
            raise _BrokenError("class not listed", what)
        return self.names.index(name)


def _fields(record: object) -> Mapping[str, Any]:
    if not isinstance(record, dict):
        raise _BrokenError("record broken", f"is {record!r}, not an object with keys")
    return record


def _value(record: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401 - whatever the file holds
    if key not in record:
        raise _BrokenError("record broken", f"lacks {key}")
    return record[key]


def _number_of(record: Mapping[str, Any], key: str) -> int:
    """Return a whole number, however it is written."""
    value = _value(record, key)
    try:
        number = int(value)
        is_whole = number == float(value)
    except (TypeError, ValueError, OverflowError):
        is_whole, number = False, 0
    if not is_whole:
        raise _BrokenError("record broken", f"has {key}={value!r}, which must be a whole number")
    return number


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _box(values: Any) -> Iterator[float]:  # noqa: ANN401 - whatever the file holds
    if not (isinstance(values, list) and len(values) == 4 and all(map(_is_number, values))):  # noqa: PLR2004
        what = f"has bbox={values!r}, which must be four numbers: x, y, width, height"
        raise _BrokenError("box unreadable", what)
    return map(float, values)


def _outline(record: Mapping[str, Any]) -> list[list[float]]:
    """Return the polygons; nothing where there are none, or run lengths."""
    outline = record.get("segmentation")
    if not isinstance(outline, list) or not outline:
        return []
    for polygon in outline:
        is_list = isinstance(polygon, list) and all(map(_is_number, polygon))
        if not is_list or len(polygon) < _POLYGON_NUMBERS or len(polygon) % 2:
            what = "has a segmentation that is no list of polygons x0, y0, x1, y1, x2, y2, ..."
            raise _BrokenError("outline unreadable", f"{what}; its box alone is used")
    return outline


# --- Writing -------------------------------------------------------------------------------------


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
    if annotation.get("difficult"):
        record["difficult"] = 1
    if "segmentation" in annotation:
        record["segmentation"] = annotation["segmentation"]
    return record

"""COCO files -> Dataset, and back."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
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
from sar_experiments.data.images import image_size
from sar_experiments.data.label_files import list_text
from sar_experiments.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_POLYGON_NUMBERS = 6  # three corners
_MEASURED_SPLITS = ("val", "test")
_SHARES = "box in shares"
_ID_TWICE = "image id twice"


def read_coco(
    annotations: Path,
    images: Path,
    *,
    name: str,
    classes: Sequence[str] | None,
    scene_pattern: str,
) -> Dataset:
    """Read a COCO file.

    Categories are matched by name, so that files with different ids agree; validation and test
    may lack some of the classes. Boxes stay as they are; data/checks.py finds those that are
    broken. A record that cannot be used is left out and becomes a fault of the dataset; ids of
    annotations are not needed, and those that are missing or repeated are replaced.

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
    reader.read_categories(
        _list(content, "categories", annotations), may_lack_classes=name in _MEASURED_SPLITS
    )
    reader.read_images(_list(content, "images", annotations), images, re.compile(scene_pattern))
    records = _list(content, "annotations", annotations, may_be_empty=True)
    reader.read_objects(records)
    reader.refuse_shares(len(records))
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
    # On one line: indented JSON of 100,000 images takes half a minute.
    run_folder.write_atomically(path, json.dumps(content, allow_nan=False) + "\n")


# --- Reading -------------------------------------------------------------------------------------


def _read_json(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        msg = f"{path} does not exist"
        raise DatasetError(msg)
    try:
        content = json.loads(list_text(path))
    except ValueError as error:
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
        self.left_out: set[int] = set()

    def read_categories(self, records: list[Any], *, may_lack_classes: bool) -> None:
        """Take over the classes, which must be right as a whole.

        Args:
            records: As the file has them.
            may_lack_classes: Whether one wanted class of them is enough.

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
        missing_names = [each for each in self.names if each not in known]
        if may_lack_classes and len(missing_names) < len(self.names):
            return
        for missing in missing_names:
            msg = (
                f"usecase.classes names {missing!r}, which {self.path} does not have"
                f"{did_you_mean(missing, known)} ({', '.join(known)})"
            )
            raise DatasetError(msg)

    def read_images(self, records: list[Any], folder: Path, pattern: re.Pattern[str]) -> None:
        """Take over the images that can be used."""
        files: set[str] = set()
        twice: set[int] = set()
        for position, record in enumerate(records):
            try:
                sample = self._sample(_fields(record), folder, pattern, files)
            except _BrokenError as broken:
                self._fault(f"images[{position}]", broken)
                if broken.code == _ID_TWICE:
                    twice.add(_number_of(record, "id"))
                continue
            self.samples[sample["image_id"]] = sample
            files.add(sample["file_name"])
        for number in twice:  # nobody knows which image its objects belong to
            self.left_out.add(number)
            name = Path(self.samples.pop(number)["file_name"]).name
            what = f"has id {number}, which another image repeats"
            self._fault(f"image {name}", _BrokenError(_ID_TWICE, what))

    def read_objects(self, records: list[Any]) -> None:
        """Take over the objects that can be used, each to its image."""
        ids = _object_ids(records)
        self._warn_of_ids(records, ids)
        for position, (record, number) in enumerate(zip(records, ids, strict=True)):
            place = f"annotations[{position}]"
            try:
                image_id, annotation = self._annotation(_fields(record), number)
            except _BrokenError as broken:
                self._fault(place, broken)
                continue
            self.samples[image_id]["annotations"].append(annotation)
            try:
                outline = _outline(record)
            except _BrokenError as broken:
                self._fault(place, broken, severity="warning")
                continue
            if outline:
                annotation["segmentation"] = outline

    def refuse_shares(self, count: int) -> None:
        """Refuse a file all of whose boxes are shares of the image.

        Raises:
            DatasetError: It is one.
        """
        shares = [fault for fault in self.faults if fault.code == _SHARES]
        if shares and len(shares) == count:
            msg = f"{shares[0].sentence} (all {count} boxes are shares)"
            raise DatasetError(msg)

    def _warn_of_ids(self, records: list[Any], ids: list[int]) -> None:
        """Tell once how many annotations got an id of their own here; nothing is lost."""
        written = [record.get("id") if isinstance(record, dict) else None for record in records]
        new = [i for i, (a, b) in enumerate(zip(written, ids, strict=True)) if a != b]
        if new:
            value = f"id {written[new[0]]!r}" if written[new[0]] is not None else "no id"
            what = (
                f"has {value}, and so on: {len(new)} annotations whose id is missing, repeated or"
                " no whole number got a new one; no object is lost"
            )
            broken = _BrokenError("annotation id replaced", what)
            self._fault(f"annotations[{new[0]}]", broken, severity="warning")

    def _fault(self, place: str, broken: _BrokenError, severity: str = "error") -> None:
        sentence = f"{self.path}: {place} {broken.what}"
        self.faults.append(Fault(broken.code, str(self.path), sentence, severity))

    def _sample(
        self, record: Mapping[str, Any], folder: Path, pattern: re.Pattern[str], files: set[str]
    ) -> Sample:
        number = _number_of(record, "id")
        if number in self.samples:
            if str(_existing(folder, str(record.get("file_name")))) in files:
                raise _BrokenError("image file twice", f"repeats file_name {record['file_name']!r}")
            what = f"repeats id {number}, so that its objects may belong to either image"
            raise _BrokenError(_ID_TWICE, what)
        self.left_out.add(number)
        name = _value(record, "file_name")
        if not isinstance(name, str) or not name:
            raise _BrokenError("image record broken", f"has file_name={name!r}, no name")
        file = _existing(folder, name)
        if str(file) in files:
            raise _BrokenError("image file twice", f"repeats file_name {name!r}")
        height, width = _image_size(record, file)
        if min(height, width) < 1:
            size = f"width={width} and height={height}"
            raise _BrokenError("image record broken", f"has {size}, which must be above 0")
        self.left_out.discard(number)
        return Sample(
            file_name=str(file),
            image_id=number,
            height=height,
            width=width,
            scene=str(
                record.get("scene") or scene_of(name.replace("\\", "/").rpartition(".")[0], pattern)
            ),
            annotations=[],
        )

    def _annotation(self, record: Mapping[str, Any], number: int) -> tuple[int, BoxAnnotation]:
        image_id = _number_of(record, "image_id")
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
            area=float(area) if _is_number(area) and math.isfinite(area) else width * height,
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
            hint = did_you_mean(name, self.names)
            what = f"is of class {name}, which usecase.classes ({listed}) does not name{hint}"
            raise _BrokenError("class not listed", what)
        return self.names.index(name)


def _existing(folder: Path, name: str) -> Path:
    """Return the file of a name, in which Windows writes backslashes between folders."""
    path = folder / name
    return path if "\\" not in name or path.exists() else folder / name.replace("\\", "/")


def _image_size(record: Mapping[str, Any], file: Path) -> tuple[int, int]:
    """Return height and width as annotated; where either is missing, of the image's header."""
    if record.get("height") is not None and record.get("width") is not None:
        return _number_of(record, "height"), _number_of(record, "width")
    lacking = next(side for side in ("width", "height") if record.get(side) is None)
    try:
        height, width, _ = image_size(file)
    except (DatasetError, OSError) as error:
        what = f"lacks {lacking}, and its image does not tell: {error}"
        raise _BrokenError("record broken", what) from error
    return height, width


def _object_ids(records: list[Any]) -> list[int]:
    """Return an id for each annotation: its own, or a new one above all others."""
    own: dict[int, int] = {}  # id -> first annotation
    for position, record in enumerate(records):
        try:
            own.setdefault(_number_of(_fields(record), "id"), position)
        except _BrokenError:
            continue
    numbers = {position: number for number, position in own.items()}
    new = itertools.count(max(own, default=0) + 1)
    return [
        numbers[position] if position in numbers else next(new) for position in range(len(records))
    ]


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
    if not all(map(math.isfinite, values)):
        raise _BrokenError("box unreadable", f"has bbox={values!r}, which must be finite numbers")
    if max(map(abs, values)) <= 1 and min(values[2:]) > 0 and max(values[2:]) < 1:
        what = (
            f"has bbox={values!r}, which are shares of the image (0 to 1); COCO's boxes are"
            " x, y, width, height in pixels"
        )
        raise _BrokenError(_SHARES, what)
    return map(float, values)


def _outline(record: Mapping[str, Any]) -> list[list[float]]:
    """Return the polygons, also of a mask in run lengths; nothing where there are none."""
    outline = record.get("segmentation")
    if isinstance(outline, dict):
        return [] if record.get("iscrowd") else _traced(outline)
    if not isinstance(outline, list) or not outline:
        return []
    for polygon in outline:
        is_list = isinstance(polygon, list) and all(map(_is_number, polygon))
        is_list = is_list and all(map(math.isfinite, polygon))
        if not is_list or len(polygon) < _POLYGON_NUMBERS or len(polygon) % 2:
            what = "has a segmentation that is no list of polygons x0, y0, x1, y1, x2, y2, ..."
            raise _BrokenError("outline unreadable", f"{what}; its box alone is used")
    return outline


def _traced(mask: Mapping[str, Any]) -> list[list[float]]:
    """Return polygons around the parts of a mask in run lengths, to an eighth of a pixel.

    Holes are filled. pycocotools and OpenCV are loaded where a file holds such masks.
    """
    import cv2
    import numpy as np
    from pycocotools import mask as run_lengths

    try:
        height, width = mask["size"]
        counts = mask["counts"]
        if isinstance(counts, list):
            packed = run_lengths.frPyObjects(
                {"size": [height, width], "counts": counts}, height, width
            )
        else:
            packed = {"size": [height, width], "counts": counts}
        left, top, wide, high = (int(n) for n in run_lengths.toBbox(packed))
        pixels = run_lengths.decode(packed)[top : top + high, left : left + wide]
    except Exception as error:  # whatever the library raises
        what = "has a segmentation in run lengths that cannot be decoded"
        raise _BrokenError("outline unreadable", f"{what}; its box alone is used") from error
    if not pixels.any():
        return []
    fine = np.kron(pixels, np.ones((_FINER, _FINER), np.uint8))
    around, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outlines = []
    for contour in around:
        if len(contour) * 2 < _POLYGON_NUMBERS:
            continue
        points = (contour[:, 0].astype(np.float64) + 0.5) / _FINER + (left, top)
        outlines.append([round(float(n), 3) for n in points.ravel()])
    return outlines


_FINER = 4  # points per pixel


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

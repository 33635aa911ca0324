"""YOLO: one text file per image, a box per line, and a list of class names elsewhere.

A line is ``class x y width height`` or ``class x0 y0 x1 y1 x2 y2 ...``, the corners of a polygon
(YOLO segmentation) or of a turned box (YOLO-OBB); all but the class number are shares of the
image's width and height. An image without a label file, or with an empty one, is an image without
objects: that is YOLO's own rule.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sar_experiments.data import dota
from sar_experiments.data.label_files import (
    ImageFolder,
    LabelError,
    Labelled,
    LabelObject,
    files_in,
    key_of,
    list_text,
    polygon_object,
    read_side_by_side,
    size_of,
    text_of,
    to_dataset,
)
from sar_experiments.data.yolo_yaml import DataYaml, read_data_yaml
from sar_experiments.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sar_experiments.data.annotations import Dataset, Fault

logger = logging.getLogger(__name__)

YAML_SUFFIXES = (".yaml", ".yml")
_LIST_FILES = ("classes.txt", "obj.names", "classes.names")
_YAML_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NO_LABELS = ("classes.txt", "train.txt", "val.txt", "test.txt", "readme.txt", "notes.txt")
_BOX = 5
_SMALLEST_POLYGON = 7
_LARGEST_SHARE = 2.0
"""An object may leave its image by as much again; beyond, the numbers are pixels."""
_ACCEPTED = (
    "accepted is: class x y width height, or class x0 y0 x1 y1 x2 y2 ..., as shares of the image"
)


def read_yolo(
    annotations: Path,
    images: Path | None,
    *,
    name: str,
    classes: Sequence[str] | None,
    scene_pattern: str,
) -> Dataset:
    """Read a folder of label files, or what a data.yaml describes.

    Args:
        annotations: Folder of the label files; or a data.yaml, whose label files lie in the
            folder ``labels`` beside each folder ``images``, or beside the images.
        images: Folder of the images, searched with its subfolders; their sizes come from their
            headers. None takes what a data.yaml names for this part.
        name: ``train``, ``val`` or ``test``.
        classes: Class names in the wanted order; None takes the file's. Where no file names the
            classes, the numbers of the label files count these.
        scene_pattern: Regular expression whose group ``scene`` names an image's scene.

    Raises:
        DatasetError: A file is missing, or nobody names the classes, or no image can be used.
    """
    if annotations.suffix.lower() in YAML_SUFFIXES:
        described = read_data_yaml(annotations)
        folder, files = _described_images(described, images, name)
        labels = [_label_beside(image) for image in files]
        names, origin = described.names, annotations
    else:
        if images is None:
            msg = f"usecase.{name}.images is not set; it names the images of {annotations}"
            raise DatasetError(msg)
        folder, files = images, ImageFolder(images).images
        labels = _labels_of(files, images, annotations)
        names, origin = _names_near(annotations)
    if not names:
        names, origin = tuple(classes or ()), Path("usecase.classes")
    if not names:
        msg = (
            f"{annotations} holds class numbers and nothing names them; set usecase.classes=[...],"
            f" or put {_LIST_FILES[0]} (a name per line) or {_YAML_FILES[0]} beside the label files"
        )
        raise DatasetError(msg)
    logger.info("class numbers of %s, from %s: %s", annotations, origin, _listed(names))
    jobs = list(zip(files, labels, strict=True))
    labelled = read_side_by_side(jobs, lambda job: _read(*job, names), lambda job: job[1])
    if annotations.is_dir():
        labelled += _without_image(annotations, set(labels))
    return to_dataset(
        labelled,
        name=name,
        classes=names if classes is None else classes,
        scene_pattern=scene_pattern,
        images=folder,
        source=annotations,
    )


def _described_images(
    described: DataYaml, images: Path | None, part: str
) -> tuple[Path, list[Path]]:
    """Return a folder that holds all images of a part, and the images."""
    if images is not None:
        return images, ImageFolder(images).images
    return described.root, described.images(part)


def _label_beside(image: Path) -> Path:
    """Return the label file of an image by YOLO's rule: images/ -> labels/, else beside it."""
    folders = list(image.parent.parts)
    if "images" in folders:
        last = len(folders) - 1 - folders[::-1].index("images")
        folders[last] = "labels"
    label, beside = Path(*folders) / f"{image.stem}.txt", image.with_suffix(".txt")
    return beside if beside.is_file() and not label.is_file() else label


def _labels_of(images: Sequence[Path], folder: Path, annotations: Path) -> list[Path]:
    """Return the label file of each image: of its path, else the only one of its name."""
    by_stem: dict[str, list[Path]] = defaultdict(list)
    files = files_in(annotations, (".txt",))
    for label in files:
        by_stem[label.stem].append(label)
    known = set(files)
    stems = Counter(image.stem for image in images)
    labels = []
    for image in images:
        label = annotations / f"{key_of(image, folder)}.txt"
        of_name = by_stem[image.stem]
        is_only = len(of_name) == 1 and stems[image.stem] == 1
        labels.append(of_name[0] if label not in known and is_only else label)
    return labels


def _names_near(labels: Path) -> tuple[tuple[str, ...], Path]:
    """Return class names from a file in the folder or the two above it, and that file."""
    for folder in (labels, labels.parent, labels.parent.parent):
        for name in _LIST_FILES:
            if (folder / name).is_file():
                lines = list_text(folder / name).splitlines()
                return tuple(line.strip() for line in lines if line.strip()), folder / name
        for name in _YAML_FILES:
            if (folder / name).is_file():
                return read_data_yaml(folder / name).names, folder / name
    return (), labels


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"{number} {name}" for number, name in enumerate(names))


def _without_image(annotations: Path, known: set[Path]) -> list[Labelled]:
    """Return a fault for each label file that no image has."""
    errors = [
        LabelError("image missing", label, None, "has no image of its name")
        for label in files_in(annotations, (".txt",))
        if label not in known and label.name.lower() not in _NO_LABELS
    ]
    return [Labelled(None, annotations, 0, 0, (), (error.fault,)) for error in errors]


def _read(image: Path, label: Path, names: Sequence[str]) -> Labelled:
    height, width = size_of(image, label)
    if not label.is_file():
        what = f"is missing: {image} counts as an image without objects"
        fault = replace(
            LabelError("label file missing", label, None, what).fault, severity="warning"
        )
        return Labelled(image, label, height, width, (), (fault,))
    objects: list[LabelObject] = []
    faults: list[Fault] = []
    for number, line in enumerate(text_of(label).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            objects.append(_object(words, names, height, width, number))
        except ValueError as error:
            what = f"{line.strip()!r}: {error}"
            code = "class unknown" if isinstance(error, _UnknownClassError) else "line unreadable"
            faults.append(LabelError(code, label, number, what).fault)
    return Labelled(image, label, height, width, objects, faults)


class _UnknownClassError(ValueError):
    """A class number that no name belongs to."""


def _object(
    words: list[str], names: Sequence[str], height: int, width: int, line: int
) -> LabelObject:
    count = len(words)
    if dota.looks_like(words) or dota.is_numbered(words):
        msg = "looks like DOTA (eight corners in pixels, then the class); set usecase.format=dota"
        raise ValueError(msg)
    if count != _BOX and (count < _SMALLEST_POLYGON or count % 2 == 0):
        msg = f"{count} words; {_ACCEPTED}"
        raise ValueError(msg)
    index = _class_index(words[0], names)
    shares = [float(word) for word in words[1:]]
    if not all(map(math.isfinite, shares)):
        msg = f"numbers must be finite; {_ACCEPTED}"
        raise ValueError(msg)
    if max(map(abs, shares)) > _LARGEST_SHARE:
        msg = f"{max(shares, key=abs):g} is no share of the image (0 to 1), but pixels; {_ACCEPTED}"
        raise ValueError(msg)
    if count == _BOX:
        x, y, w, h = shares
        left, top = (x - w / 2) * width, (y - h / 2) * height
        box = (left, top, left + w * width, top + h * height)
        return LabelObject(names[index], box, None, False, line)
    polygon = [share * (height if i % 2 else width) for i, share in enumerate(shares)]
    return polygon_object(names[index], polygon, is_difficult=False, line=line)


def _class_index(word: str, names: Sequence[str]) -> int:
    index = int(word) if word.isdigit() else int(float(word))
    if not 0 <= index < len(names):
        msg = f"class {word} is none of the {len(names)}: {_listed(names)}"
        raise _UnknownClassError(msg)
    return index

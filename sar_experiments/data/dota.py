"""DOTA: one text file per image, a turned box per line.

A line is ``x0 y0 x1 y1 x2 y2 x3 y3 class difficult`` in pixels, the last word may be missing. Lines
that begin with ``imagesource:`` or ``gsd:`` are skipped. The corners stay as the object's polygon,
so that a rotation draws a tight box; the box is the upright one around them. An image without a
label file is no part of the dataset.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sar_experiments.data.label_files import (
    ImageFolder,
    LabelError,
    Labelled,
    LabelObject,
    class_names,
    files_in,
    key_of,
    polygon_object,
    read_side_by_side,
    size_of,
    text_of,
    to_dataset,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sar_experiments.data.annotations import Dataset, Fault

HEADERS = ("imagesource", "gsd")
NUMBERS = 8
_YOLO_WORDS = 5
_LARGEST_SHARE = 2.0
_ACCEPTED = "accepted is x0 y0 x1 y1 x2 y2 x3 y3 class difficult"


def read_dota(
    annotations: Path,
    images: Path,
    *,
    name: str,
    classes: Sequence[str] | None,
    scene_pattern: str,
) -> Dataset:
    """Read a folder of DOTA's label files, searched with its subfolders.

    Args:
        annotations: Folder of the label files.
        images: Folder of the images, searched likewise; their sizes come from their headers.
        name: What the dataset is called in messages.
        classes: Class names in the wanted order; None takes those that occur, by alphabet.
        scene_pattern: Regular expression whose group ``scene`` names an image's scene.

    Raises:
        DatasetError: There is no such folder, or no image that can be used.
    """
    folder = ImageFolder(images)
    labelled = read_side_by_side(
        files_in(annotations, (".txt",)),
        lambda label: _read(label, annotations, folder),
        lambda label: label,
    )
    return to_dataset(
        labelled,
        name=name,
        classes=class_names(labelled, classes),
        scene_pattern=scene_pattern,
        images=images,
        source=annotations,
    )


def looks_like(words: Sequence[str]) -> bool:
    """Tell whether a line is DOTA's rather than YOLO's, which has a class number in front."""
    if words and words[0].lower().startswith(HEADERS):
        return True
    return len(words) > NUMBERS and not words[NUMBERS].replace(".", "", 1).isdigit()


def is_numbered(words: Sequence[str]) -> bool:
    """Tell whether a line is DOTA's with a number for the class: eight pixels, class, flag."""
    if len(words) != NUMBERS + 2 or not all(word.isdigit() for word in words[NUMBERS:]):
        return False
    try:
        return max(map(float, words[:NUMBERS])) > _LARGEST_SHARE
    except ValueError:
        return False


def _looks_like_yolo(words: Sequence[str]) -> bool:
    """Tell whether a line is YOLO's: a class number, then nothing but shares of the image."""
    try:
        shares = [float(word) for word in words[1:]]
    except ValueError:
        return False
    is_share = all(abs(share) <= _LARGEST_SHARE for share in shares)
    return words[0].isdigit() and len(words) >= _YOLO_WORDS and len(words) % 2 == 1 and is_share


def _read(label: Path, root: Path, folder: ImageFolder) -> Labelled:
    image = folder.find(key_of(label, root), label)
    height, width = size_of(image, label)
    objects: list[LabelObject] = []
    faults: list[Fault] = []
    for number, line in enumerate(text_of(label).splitlines(), start=1):
        words = line.split()
        if not words or words[0].lower().startswith(HEADERS):
            continue
        try:
            objects.append(_object(words, label, number))
        except LabelError as error:
            faults.append(error.fault)
    return Labelled(image, label, height, width, objects, faults)


def _object(words: list[str], label: Path, line: int) -> LabelObject:
    if _looks_like_yolo(words):
        what = f"{' '.join(words)!r} looks like YOLO (class, then shares); set usecase.format=yolo"
        raise LabelError("line unreadable", label, line, what)
    try:
        polygon = [float(word) for word in words[:NUMBERS]]
    except ValueError as error:
        what = f"{' '.join(words)!r}: {error}; {_ACCEPTED}"
        raise LabelError("line unreadable", label, line, what) from error
    if not all(map(math.isfinite, polygon)):
        what = f"{' '.join(words)!r}: numbers must be finite; {_ACCEPTED}"
        raise LabelError("line unreadable", label, line, what)
    if len(words) <= NUMBERS:
        what = f"{' '.join(words)!r} names no class; {_ACCEPTED}"
        raise LabelError("line unreadable", label, line, what)
    has_flag = len(words) > NUMBERS + 1 and words[-1].isdigit()
    class_name = " ".join(words[NUMBERS : -1 if has_flag else None])
    is_difficult = has_flag and words[-1] != "0"
    return polygon_object(class_name, polygon, is_difficult=is_difficult, line=line)

"""Pascal VOC: a folder with one XML file per image.

Boxes count pixels from 1, both ends inside: ``xmin=1, xmax=10`` covers ``[0, 10]`` here. A turned
box of roLabelImg (``robndbox``: centre, sides, angle in radians) becomes a polygon with the box
around it. An image without an XML file is no part of the dataset.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from sar_experiments.data.label_files import (
    ImageFolder,
    LabelError,
    Labelled,
    LabelObject,
    bytes_of,
    class_names,
    files_in,
    key_of,
    polygon_object,
    read_side_by_side,
    size_of,
    to_dataset,
)
from sar_experiments.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sar_experiments.data.annotations import Dataset, Fault

SUFFIX = ".xml"
_LISTS = "ImageSets"
_SIDES = ("height", "width")
_NOT_DIFFICULT = ("", "0", "false", "unspecified")


def read_voc(
    annotations: Path,
    images: Path,
    *,
    name: str,
    classes: Sequence[str] | None,
    scene_pattern: str,
) -> Dataset:
    """Read a folder of XML files, or those that a list in VOC's ImageSets folder names.

    Args:
        annotations: Folder, searched with its subfolders; or such a list, ending in .txt, whose
            XML files lie in ``Annotations`` beside ImageSets.
        images: Folder of the images, searched likewise.
        name: What the dataset is called in messages.
        classes: Class names in the wanted order; None takes those that occur, by alphabet.
        scene_pattern: Regular expression whose group ``scene`` names an image's scene.

    Raises:
        DatasetError: There is no such file, or no image that can be used.
    """
    folder = ImageFolder(images)
    root, labels = _label_files(annotations)
    labelled = read_side_by_side(
        labels, lambda label: _read(label, root, folder), lambda label: label
    )
    return to_dataset(
        labelled,
        name=name,
        classes=class_names(labelled, classes),
        scene_pattern=scene_pattern,
        images=images,
        source=annotations,
    )


def is_list(path: Path) -> bool:
    """Tell whether a file is one of VOC's lists of images."""
    return path.suffix.lower() == ".txt" and _LISTS in path.absolute().parent.parts


def _label_files(annotations: Path) -> tuple[Path, list[Path]]:
    """Return the folder of the XML files, and those that are wanted."""
    if not is_list(annotations):
        return annotations, files_in(annotations, (SUFFIX,))
    lists = next(each for each in annotations.absolute().parents if each.name == _LISTS)
    root = lists.parent / "Annotations"
    if not root.is_dir():
        msg = f"{annotations} lists images, but {root} with their XML files is no folder"
        raise DatasetError(msg)
    lines = annotations.read_text(encoding="utf-8-sig").splitlines()
    return root, [root / f"{line.split()[0]}{SUFFIX}" for line in lines if line.strip()]


def _read(label: Path, root: Path, folder: ImageFolder) -> Labelled:
    content = bytes_of(label)
    try:
        tree = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        what = f"is no whole XML file: {error}"
        line = error.position[0] if isinstance(error, ElementTree.ParseError) else None
        raise LabelError("label file unreadable", label, line, what) from error
    image = folder.find(key_of(label, root), label)
    height, width = _annotated_size(tree) or size_of(image, label)
    objects: list[LabelObject] = []
    faults: list[Fault] = []
    lines = _object_lines(content)
    for element in tree.iter("object"):
        line = next(lines, 0)
        try:
            objects.append(_object(element, line))
        except ValueError as error:
            what = f"the object {error}"
            faults.append(LabelError("object unreadable", label, line, what).fault)
    return Labelled(image, label, height, width, objects, faults)


def _annotated_size(tree: ElementTree.Element) -> tuple[int, int] | None:
    """Return height and width; None where the file has none, or zeros, as some tools write."""
    try:
        height, width = (int(float(tree.findtext(f"size/{side}", ""))) for side in _SIDES)
    except (ValueError, OverflowError):
        return None
    return (height, width) if min(height, width) > 0 else None


def _object_lines(content: bytes) -> Iterator[int]:
    """Yield the lines that objects begin in; ElementTree keeps none."""
    line, last = 1, 0
    for match in re.finditer(rb"<object[\s>]", content):
        line += content.count(b"\n", last, match.start())
        last = match.start()
        yield line


def _object(element: ElementTree.Element, line: int) -> LabelObject:
    class_name = element.findtext("name", "").strip()
    if not class_name:
        raise ValueError("has no name")
    is_difficult = element.findtext("difficult", "0").strip().lower() not in _NOT_DIFFICULT
    turned = element.find("robndbox")
    if turned is not None:
        return polygon_object(class_name, _corners(turned), is_difficult=is_difficult, line=line)
    left, top, right, bottom = _numbers(element, ("xmin", "ymin", "xmax", "ymax"), "bndbox/")
    box = (left - 1, top - 1, right, bottom)
    return LabelObject(class_name, box, None, is_difficult, line)


def _numbers(element: ElementTree.Element, names: Sequence[str], parent: str = "") -> list[float]:
    found = []
    for name in names:
        text = element.findtext(f"{parent}{name}")
        try:
            found.append(float(text or ""))
        except ValueError:
            msg = f"has {parent}{name}={text!r}, which must be a number"
            raise ValueError(msg) from None
    return found


def _corners(turned: ElementTree.Element) -> list[float]:
    """Return the corners of a turned box as x0, y0, x1, y1, ...; its angle runs clockwise."""
    centre_x, centre_y, width, height, angle = _numbers(turned, ("cx", "cy", "w", "h", "angle"))
    cosine, sine = math.cos(angle) / 2, math.sin(angle) / 2
    along = (width * cosine, width * sine)
    across = (-height * sine, height * cosine)
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return [
        number
        for a, b in signs
        for number in (
            centre_x + a * along[0] + b * across[0],
            centre_y + a * along[1] + b * across[1],
        )
    ]

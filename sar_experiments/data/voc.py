"""XML label files: Pascal VOC and the dialects that radar datasets use.

Told by the root element: ``annotation`` with ``object`` elements (VOC, LabelImg, roLabelImg, SSDD,
RSDD-SAR, DIOR-R, FAIR1M), ``HRSC_Image`` (HRSC2016) or ``annotations`` with ``image`` elements
("CVAT for images": one file for many images). Namespaces do not matter. An XML file of any other
structure is an error, never an image without objects.

VOC's ``bndbox`` counts pixels from 1, both ends inside: ``xmin=1, xmax=10`` covers ``[0, 10]``
here. All other coordinates are taken as written: HRSC2016 and CVAT count from 0, and so are turned
boxes and points (``robndbox``, ``rotated_bndbox``, ``points``), which become a polygon with the box
around it. An image without an XML file is no part of the dataset.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.parsers import expat

from sar_experiments.data.label_files import (
    ImageFolder,
    LabelError,
    Labelled,
    LabelObject,
    bytes_of,
    class_names,
    decoded,
    files_in,
    key_of,
    list_text,
    polygon_object,
    read_side_by_side,
    size_of,
    to_dataset,
)
from sar_experiments.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sar_experiments.data.annotations import Dataset, Fault

    Element = ElementTree.Element

SUFFIX = ".xml"
_LISTS = "ImageSets"
_NOT_DIFFICULT = ("", "0", "false", "unspecified")
_TURNED = ("cx", "cy", "w", "h", "angle")
_TURNED_SSDD = tuple(f"rotated_bbox_{name}" for name in ("cx", "cy", "w", "h", "theta"))
_TURNED_HRSC = tuple(f"mbox_{name}" for name in ("cx", "cy", "w", "h", "ang"))
_CORNERS = tuple(f"{axis}{number}" for number in range(1, 5) for axis in "xy")
_CORNERS_DIOR = tuple(
    f"{axis}_{corner}"
    for corner in ("left_top", "right_top", "right_bottom", "left_bottom")
    for axis in "xy"
)
_TURNED_KEYS = {"robndbox": _TURNED, "rotated_bndbox": _TURNED_SSDD}
_KNOWN_RECORDS = ("source", "owner", "size", "size_part", "objects", "research")
_CVAT_LABELS_ONLY = ("tag", "attribute")
_LOOKED_FOR = (
    "looked for: object elements in an annotation (Pascal VOC), HRSC_Object in an HRSC_Image"
    " (HRSC2016), image elements in annotations (CVAT for images)"
)
_TRIANGLE = 6  # numbers


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
        annotations: Folder, searched with its subfolders; or one XML file, as CVAT writes it; or
            such a list, ending in .txt, whose XML files lie in ``Annotations`` beside ImageSets.
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
    if annotations.suffix.lower() == SUFFIX and not annotations.is_dir():
        return annotations.parent, [annotations]
    if not is_list(annotations):
        return annotations, files_in(annotations, (SUFFIX,))
    lists = next(each for each in annotations.absolute().parents if each.name == _LISTS)
    root = lists.parent / "Annotations"
    if not root.is_dir():
        msg = f"{annotations} lists images, but {root} with their XML files is no folder"
        raise DatasetError(msg)
    lines = list_text(annotations).splitlines()
    return root, [root / f"{line.split()[0]}{SUFFIX}" for line in lines if line.strip()]


@dataclass(frozen=True)
class _Tree:
    """An XML file without its namespaces, with the line of each element."""

    root: Element
    lines: dict[Element, int]


def _read(label: Path, root: Path, folder: ImageFolder) -> list[Labelled]:
    tree = _parse(label)
    tag = tree.root.tag
    if tag == "annotations" and tree.root.find("image") is not None:
        records = tree.root.findall("image")
        return [_cvat_image(record, tree, label, folder) for record in records]
    if tag == "HRSC_Image":
        elements, read, sizes = _hrsc_elements(tree, label), _hrsc_object, _HRSC_SIZE
    else:
        elements, read, sizes = _voc_elements(tree, label), _object, _VOC_SIZE
    image = folder.find(key_of(label, root), label)
    height, width = _annotated_size(tree.root, sizes) or size_of(image, label)
    return [_labelled((image, label, height, width), elements, tree, read)]


def _parse(label: Path) -> _Tree:
    content = bytes_of(label)
    declared = re.match(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:-]+)", content)
    builder, lines = ElementTree.TreeBuilder(), {}
    parser = expat.ParserCreate("utf-8", namespace_separator="}")

    def start(tag: str, attributes: dict[str, str]) -> None:
        plain = {_without_namespace(name): value for name, value in attributes.items()}
        lines[builder.start(_without_namespace(tag), plain)] = parser.CurrentLineNumber

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda tag: builder.end(_without_namespace(tag))
    parser.CharacterDataHandler = builder.data
    text = decoded(content, label, declared[1].decode() if declared else None)
    try:
        parser.Parse(text.encode(), True)
        return _Tree(builder.close(), lines)
    except expat.ExpatError as error:
        what = f"is no whole XML file: {error}"
        raise LabelError("label file unreadable", label, error.lineno, what) from error


def _without_namespace(tag: str) -> str:
    return tag.rpartition("}")[2]


def _labelled(
    image: tuple[Path, Path, int, int],
    elements: Sequence[Element],
    tree: _Tree,
    read: Callable[[Element, int], LabelObject],
) -> Labelled:
    """Read the objects of one image: image, label file, height and width."""
    objects: list[LabelObject] = []
    faults: list[Fault] = []
    for element in elements:
        line = tree.lines[element]
        try:
            objects.append(read(element, line))
        except ValueError as error:
            what = f"the object {error}"
            faults.append(LabelError("object unreadable", image[1], line, what).fault)
    return Labelled(*image, objects, faults)


def _unknown(label: Path, line: int, what: str) -> LabelError:
    return LabelError("structure unknown", label, line, f"{what}; {_LOOKED_FOR}")


# --- Pascal VOC and its dialects -----------------------------------------------------------------

_VOC_SIZE = ("size/height", "size/width")


def _voc_elements(tree: _Tree, label: Path) -> list[Element]:
    """Return the objects; none only where the file is one of VOC's that holds none.

    Raises:
        LabelError: Nothing says that what is there instead are no objects.
    """
    elements = list(tree.root.iter("object"))
    if elements:
        return elements
    if tree.root.tag != "annotation":
        raise _unknown(label, 1, f"has the root element {tree.root.tag} and no object")
    for child in tree.root:
        if child.tag not in _KNOWN_RECORDS and (len(child) or child.attrib):
            what = f"holds no object but the unknown element {child.tag}"
            raise _unknown(label, tree.lines[child], what)
    return []


def _annotated_size(tree: Element, sides: Sequence[str]) -> tuple[int, int] | None:
    """Return height and width; None where the file has none, or zeros, as some tools write."""
    try:
        height, width = (int(float(tree.findtext(side, ""))) for side in sides)
    except (ValueError, OverflowError):
        return None
    return (height, width) if min(height, width) > 0 else None


def _object(element: Element, line: int) -> LabelObject:
    class_name = _text(element, "name") or _text(element, "possibleresult/name")
    if not class_name:
        raise ValueError("has no name")
    is_difficult = _is_difficult(element)
    outline = _voc_outline(element)
    if outline is not None:
        return polygon_object(class_name, outline, is_difficult=is_difficult, line=line)
    left, top, right, bottom = _numbers(element, ("xmin", "ymin", "xmax", "ymax"), "bndbox/")
    box = (left - 1, top - 1, right, bottom)
    return LabelObject(class_name, box, None, is_difficult, line)


def _voc_outline(element: Element) -> list[float] | None:
    """Return the corners of a turned box or of points; None where there is an upright box."""
    for tag, keys in _TURNED_KEYS.items():
        turned = element.find(tag)
        if turned is None:
            continue
        for corners in (_CORNERS, _CORNERS_DIOR):
            if turned.find(corners[0]) is not None:
                return _numbers(turned, corners)
        unit = math.pi / 180 if keys is _TURNED_SSDD else 1.0
        centre_x, centre_y, width, height, angle = _numbers(turned, keys)
        return _corners(centre_x, centre_y, width, height, angle * unit)
    points = [each.text or "" for each in element.findall("points/point")]
    return _points(";".join(points)) if points and element.find("bndbox") is None else None


def _is_difficult(element: Element) -> bool:
    return element.findtext("difficult", "0").strip().lower() not in _NOT_DIFFICULT


def _text(element: Element, path: str) -> str:
    return element.findtext(path, "").strip()


def _numbers(element: Element, names: Sequence[str], parent: str = "") -> list[float]:
    return [_number(element.findtext(f"{parent}{name}"), f"{parent}{name}") for name in names]


def _number(text: str | None, name: str) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        msg = f"has {name}={text!r}, which must be a number"
        raise ValueError(msg)
    return number


def _points(text: str) -> list[float]:
    """Return ``x,y;x,y;...`` as x0, y0, x1, y1, ...; a last corner that repeats the first goes."""
    points = [_number(word, "points") for word in re.split(r"[,;]", text)]
    if len(points) > _TRIANGLE and points[:2] == points[-2:]:
        points = points[:-2]
    if len(points) < _TRIANGLE or len(points) % 2:
        msg = f"has points={text!r}; accepted are three or more, as x,y"
        raise ValueError(msg)
    return points


# --- HRSC2016 ------------------------------------------------------------------------------------

_HRSC_SIZE = ("Img_SizeHeight", "Img_SizeWidth")


def _hrsc_elements(tree: _Tree, label: Path) -> list[Element]:
    holder = tree.root.find("HRSC_Objects")
    if holder is None:
        raise _unknown(label, 1, "is an HRSC_Image without the element HRSC_Objects")
    return holder.findall("HRSC_Object")


def _hrsc_object(element: Element, line: int) -> LabelObject:
    class_name = _text(element, "Class_ID")
    if not class_name:
        raise ValueError("has no Class_ID")
    is_difficult = _is_difficult(element)
    if element.find(_TURNED_HRSC[0]) is not None:
        outline = _corners(*_numbers(element, _TURNED_HRSC))
        return polygon_object(class_name, outline, is_difficult=is_difficult, line=line)
    left, top, right, bottom = _numbers(element, ("xmin", "ymin", "xmax", "ymax"), "box_")
    return LabelObject(class_name, (left, top, right, bottom), None, is_difficult, line)


# --- CVAT for images -----------------------------------------------------------------------------


def _cvat_image(record: Element, tree: _Tree, label: Path, folder: ImageFolder) -> Labelled:
    name = record.get("name", "").replace("\\", "/")
    key = str(PurePosixPath(name).with_suffix("")) if name else ""
    try:
        image = folder.find(key, label, shown=name)
        height, width = _cvat_size(record) or size_of(image, label)
    except LabelError as error:
        return Labelled(None, label, 0, 0, (), (error.fault,))
    elements = [each for each in record if each.tag not in _CVAT_LABELS_ONLY]
    return _labelled((image, label, height, width), elements, tree, _cvat_object)


def _cvat_size(record: Element) -> tuple[int, int] | None:
    height, width = (record.get(side, "") for side in ("height", "width"))
    return (int(height), int(width)) if height.isdigit() and width.isdigit() else None


def _cvat_object(element: Element, line: int) -> LabelObject:
    class_name = element.get("label", "").strip()
    if not class_name:
        msg = f"({element.tag}) has no label"
        raise ValueError(msg)
    if element.tag == "polygon":
        outline = _points(element.get("points", ""))
        return polygon_object(class_name, outline, is_difficult=False, line=line)
    if element.tag != "box":
        msg = f"is a {element.tag}, which has no box; accepted are box and polygon"
        raise ValueError(msg)
    sides = ("xtl", "ytl", "xbr", "ybr")
    left, top, right, bottom = (_number(element.get(side), side) for side in sides)
    turn = _number(element.get("rotation", "0"), "rotation")
    if turn:
        centre = ((left + right) / 2, (top + bottom) / 2)
        outline = _corners(*centre, right - left, bottom - top, math.radians(turn))
        return polygon_object(class_name, outline, is_difficult=False, line=line)
    return LabelObject(class_name, (left, top, right, bottom), None, False, line)


def _corners(
    centre_x: float, centre_y: float, width: float, height: float, angle: float
) -> list[float]:
    """Return the corners of a turned box as x0, y0, x1, y1, ...; its angle runs clockwise."""
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

"""What formats with one label file per image share: finding images, reading side by side.

A format is a module with a function that reads one label file into ``Labelled``; ``to_dataset``
does the rest.
"""

from __future__ import annotations

import codecs
import os
import re
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sar_experiments.data.annotations import (
    XYXY_ABS,
    BoxAnnotation,
    Dataset,
    Fault,
    Sample,
    did_you_mean,
    scene_of,
)
from sar_experiments.data.images import FOREIGN_SUFFIXES, SUFFIXES, image_size
from sar_experiments.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Job = TypeVar("Job")

READERS = 16
"""Threads that read label files and image headers: they wait for the disk, not for each other."""
_CHUNK = 64
_TRIANGLE = 6  # numbers


class LabelObject(NamedTuple):
    """One object as its label file has it.

    Attributes:
        class_name: As written.
        bbox: Left, top, right, bottom in pixels, continuous.
        polygon: x0, y0, x1, y1, ... in pixels; None where there is only a box.
        is_difficult: Whether the annotator was not sure.
        line: Of the label file, counted from 1.
    """

    class_name: str
    bbox: tuple[float, float, float, float]
    polygon: list[float] | None
    is_difficult: bool
    line: int


@dataclass(frozen=True, slots=True)
class Labelled:
    """One image with what its label file says.

    Attributes:
        image: Its file; None where it cannot be used, and the faults say why.
        label: The label file.
        height: Of the image, in pixels.
        width: Likewise.
        objects: What is in it.
        faults: What could not be read.
    """

    image: Path | None
    label: Path
    height: int
    width: int
    objects: Sequence[LabelObject]
    faults: Sequence[Fault]


class ImageFolder:
    """The images of a folder and its subfolders, found by path or name without suffix."""

    def __init__(self, folder: Path) -> None:
        """Walk the folder.

        Raises:
            DatasetError: It is no folder.
        """
        self.folder = folder
        self.images = files_in(folder, SUFFIXES)
        self._by_key: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in self.images:
            self._by_key[key_of(path, folder)].append(path)
            self._by_stem[path.stem].append(path)

    def find(self, key: str, label: Path, *, shown: str = "") -> Path:
        """Return the image of a label file.

        Args:
            key: Path of the label file in its folder, without suffix.
            label: The label file.
            shown: Name of the image where the label file names it.

        Raises:
            LabelError: There is none, or more than one.
        """
        found = self._by_key.get(key) or self._by_stem.get(key.rpartition("/")[2]) or []
        if len(found) == 1:
            return found[0]
        if not found:
            named = (
                f"names the image {shown}, which is not" if shown else "has no image of its name"
            )
            what = f"{named} in {self.folder}"
            raise LabelError("image missing", label, None, what)
        names = ", ".join(str(path.relative_to(self.folder)) for path in found)
        raise LabelError("image ambiguous", label, None, f"may belong to {names}")


class LabelError(Exception):
    """Something of a label file cannot be used; becomes a fault of the dataset."""

    def __init__(self, code: str, file: Path, line: int | None, what: str) -> None:
        super().__init__(what)
        place = f"{file}, line {line}:" if line is not None else f"{file}"
        self.fault = Fault(code, str(file), f"{place} {what}")


def files_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files below a folder with such a suffix, sorted; hidden ones are left out.

    Raises:
        DatasetError: It is no folder, or images are wanted and one is of a kind that cannot be
            read, which would be passed over otherwise.
    """
    if not folder.is_dir():
        msg = f"{folder} is no folder"
        raise DatasetError(msg)
    found: list[str] = []
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [each for each in folders if not each.startswith(".")]
        foreign = [each for each in names if each.lower().endswith(FOREIGN_SUFFIXES)]
        if foreign and suffixes == SUFFIXES:
            msg = (
                f"{Path(parent) / min(foreign)} is an image that cannot be read; accepted are"
                f" {', '.join(SUFFIXES)}: convert it, or keep it in a folder of its own"
            )
            raise DatasetError(msg)
        found += [
            os.path.join(parent, name)  # noqa: PTH118 - 100,000 strings sort five times as fast
            for name in names
            if name.lower().endswith(suffixes) and not name.startswith(".")
        ]
    return [Path(each) for each in sorted(found)]


def key_of(path: Path, folder: Path) -> str:
    """Return the path in its folder, without suffix."""
    return str(path)[len(str(folder)) + 1 : -len(path.suffix)]


def bytes_of(label: Path) -> bytes:
    """Return the content of a label file.

    Raises:
        LabelError: It cannot be read.
    """
    try:
        return label.read_bytes()
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise LabelError("label file unreadable", label, None, what) from error


def text_of(label: Path) -> str:
    """Return the text of a label file, with or without a byte order mark.

    Raises:
        LabelError: It is no UTF-8 text, or cannot be read.
    """
    return decoded(bytes_of(label), label)


def list_text(path: Path) -> str:
    """Return the text of a file that a whole dataset needs: a list of images or class names.

    Raises:
        DatasetError: It is no UTF-8 text, or cannot be read.
    """
    try:
        return text_of(path)
    except LabelError as error:
        raise DatasetError(error.fault.sentence) from error


def decoded(content: bytes, label: Path, declared: str | None = None) -> str:
    """Return the text of a file: as it declares, else UTF-8, or UTF-16 by its byte order mark.

    Raises:
        LabelError: It is neither; GBK and latin-1 cannot be told apart, so nothing is guessed.
    """
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encodings = ["utf-16"] if is_utf16 else [declared or "utf-8-sig", "utf-8-sig"]
    line = 1
    for encoding in encodings:
        try:
            return content.decode(encoding).removeprefix("\ufeff")
        except (UnicodeDecodeError, LookupError) as error:
            line = content.count(b"\n", 0, getattr(error, "start", 0)) + 1
    what = f"is no {encodings[0].removesuffix('-sig').upper()} text; save it as UTF-8"
    raise LabelError("label file unreadable", label, line, what)


def size_of(image: Path, label: Path) -> tuple[int, int]:
    """Return height and width from the header of an image.

    Raises:
        LabelError: It has no header that can be read.
    """
    try:
        height, width, _ = image_size(image)
    except (DatasetError, OSError) as error:
        raise LabelError("image broken", label, None, f"belongs to {error}") from error
    return height, width


def polygon_object(
    class_name: str, polygon: list[float], *, is_difficult: bool, line: int
) -> LabelObject:
    """Return an object with the box around its polygon of three corners or more."""
    xs, ys = polygon[::2], polygon[1::2]
    box = (min(xs), min(ys), max(xs), max(ys))
    return LabelObject(class_name, box, polygon, is_difficult, line)


def read_side_by_side(
    jobs: Sequence[Job],
    read: Callable[[Job], Labelled | list[Labelled]],
    label_of: Callable[[Job], Path],
) -> list[Labelled]:
    """Read many label files; one that cannot be used is a fault, never an exception."""

    def one(job: Job) -> list[Labelled]:
        try:
            found = read(job)
        except LabelError as error:
            return [Labelled(None, label_of(job), 0, 0, (), (error.fault,))]
        return found if isinstance(found, list) else [found]

    def some(start: int) -> list[Labelled]:
        return [each for job in jobs[start : start + _CHUNK] for each in one(job)]

    with ThreadPoolExecutor(READERS) as pool:
        return [each for part in pool.map(some, range(0, len(jobs), _CHUNK)) for each in part]


def to_dataset(
    labelled: Iterable[Labelled],
    *,
    name: str,
    classes: Sequence[str],
    scene_pattern: str,
    images: Path,
    source: Path,
) -> Dataset:
    """Number images and objects in their order, and classes as they are listed.

    Raises:
        DatasetError: No image can be used.
    """
    numbering = _Numbering(classes)
    pattern = re.compile(scene_pattern)
    samples: list[Sample] = []
    for each in labelled:
        numbering.faults += each.faults
        if each.image is None:
            continue
        samples.append(
            Sample(
                file_name=str(each.image),
                image_id=len(samples) + 1,
                height=each.height,
                width=each.width,
                scene=scene_of(key_of(each.image, images), pattern),
                annotations=list(numbering.annotations(each)),
            )
        )
    if not samples:
        first = f"; the first fault: {numbering.faults[0].sentence}" if numbering.faults else ""
        msg = f"{source} holds no image that can be used{first}"
        raise DatasetError(msg)
    faults = tuple(numbering.faults)
    return Dataset(name, tuple(samples), tuple(classes), images, source, faults)


def class_names(labelled: Iterable[Labelled], classes: Sequence[str] | None) -> tuple[str, ...]:
    """Return the wanted classes; where none are named, those that occur, by alphabet."""
    if classes is not None:
        return tuple(classes)
    return tuple(sorted({each.class_name for one in labelled for each in one.objects}))


class _Numbering:
    """Gives objects their numbers; one whose class is not listed is a fault."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self.index_of = {name: index for index, name in enumerate(classes)}
        self.count = 0
        self.faults: list[Fault] = []

    def annotations(self, labelled: Labelled) -> Iterator[BoxAnnotation]:
        for each in labelled.objects:
            if each.class_name not in self.index_of:
                self._refuse(each, labelled.label)
                continue
            self.count += 1
            left, top, right, bottom = each.bbox
            annotation = BoxAnnotation(
                bbox=[left, top, right, bottom],
                bbox_mode=XYXY_ABS,
                category_id=self.index_of[each.class_name],
                iscrowd=0,
                id=self.count,
                area=(right - left) * (bottom - top),
            )
            if each.polygon is not None:
                annotation["area"] = polygon_area(each.polygon)
                annotation["segmentation"] = [each.polygon]
            if each.is_difficult:
                annotation["difficult"] = 1
            yield annotation

    def _refuse(self, each: LabelObject, label: Path) -> None:
        what = (
            f"is of class {each.class_name}, which is none of the classes"
            f" ({', '.join(self.classes)}){did_you_mean(each.class_name, self.classes)};"
            " usecase.classes lists them"
        )
        self.faults.append(LabelError("class not listed", label, each.line, what).fault)


def polygon_area(polygon: Sequence[float]) -> float:
    """Return the area inside a polygon x0, y0, x1, y1, ... (Gauss's trapezoid formula)."""
    xs, ys = polygon[::2], polygon[1::2]
    turns = (xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))
    return abs(sum(turns)) / 2

"""FRONT DOOR read_dataset(): annotations in any known format, told from what is there."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from sar_experiments.config import Format
from sar_experiments.data import dota, voc, yolo
from sar_experiments.data.coco import read_coco
from sar_experiments.data.label_files import files_in
from sar_experiments.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sar_experiments.data.annotations import Dataset

ACCEPTED = (
    "accepted are a COCO file (.json), a folder of Pascal VOC (.xml), YOLO or DOTA (.txt) label"
    " files, a CVAT file (.xml), a YOLO data.yaml, and a list in VOC's ImageSets folder"
)
_LOOKED_INTO = 1000
"""Label files that are opened to tell YOLO from DOTA; empty ones tell nothing."""


def read_dataset(
    annotations: Path,
    images: Path | None,
    *,
    name: str,
    classes: Sequence[str] | None,
    scene_pattern: str,
    form: Format = Format.auto,
) -> Dataset:
    """Read annotations.

    Args:
        annotations: A file or a folder, see ACCEPTED.
        images: Folder of the images; may be None for a data.yaml that names them.
        name: ``train``, ``val`` or ``test``.
        classes: Class names in the wanted order; None takes those of the annotations.
        scene_pattern: Regular expression whose group ``scene`` names an image's scene.
        form: How they are written; auto tells it from the files.

    Raises:
        DatasetError: The format is unknown, or the annotations as a whole break its contract.
    """
    form = format_of(annotations) if form is Format.auto else form
    if form is Format.yolo:
        return yolo.read_yolo(
            annotations, images, name=name, classes=classes, scene_pattern=scene_pattern
        )
    if images is None:
        msg = f"usecase.{name}.images is not set; it names the folder of the images"
        raise DatasetError(msg)
    readers = {Format.coco: read_coco, Format.voc: voc.read_voc, Format.dota: dota.read_dota}
    return readers[form](
        annotations, images, name=name, classes=classes, scene_pattern=scene_pattern
    )


def format_of(annotations: Path) -> Format:
    """Tell the format from the name of a file, or from what lies in a folder.

    Raises:
        DatasetError: It shows no known format, or more than one.
    """
    if annotations.is_dir():
        return _format_of_folder(annotations)
    suffix = annotations.suffix.lower()
    if suffix in yolo.YAML_SUFFIXES:
        return Format.yolo
    if suffix == ".json":
        return Format.coco
    if suffix == voc.SUFFIX or voc.is_list(annotations):
        return Format.voc
    msg = f"{annotations} is in no known format; {ACCEPTED}"
    raise DatasetError(msg)


def _format_of_folder(folder: Path) -> Format:
    files = files_in(folder, (voc.SUFFIX, ".txt"))
    texts = [path for path in files if path.suffix.lower() == ".txt"]
    if len(texts) < len(files):
        return Format.voc
    for path in islice(texts, _LOOKED_INTO):
        words = _first_words(path)
        if dota.looks_like(words) or dota.is_numbered(words):
            return Format.dota
        if words and words[0].isdigit():
            return Format.yolo
    if texts:
        msg = f"the label files of {folder} do not tell their format; set usecase.format=yolo|dota"
        raise DatasetError(msg)
    msg = f"{folder} holds no label files; {ACCEPTED}"
    raise DatasetError(msg)


def _first_words(path: Path) -> list[str]:
    """Return the words of the first line that is not empty."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return next((line.split() for line in file if line.strip()), [])

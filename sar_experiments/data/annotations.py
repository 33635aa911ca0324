"""Annotated images in Detectron2's form, and how they are split; what every reader returns."""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NotRequired, TypedDict

import numpy as np

from sar_experiments.config import Difficult
from sar_experiments.errors import DatasetError

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable
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
        difficult: 1 where the annotator was not sure; left out elsewhere. See ``as_agreed``.
    """

    bbox: list[float]
    bbox_mode: int
    category_id: int
    iscrowd: int
    id: int
    area: float
    segmentation: NotRequired[list[list[float]]]
    difficult: NotRequired[int]


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


@dataclass(frozen=True)
class Fault:
    """What a reader found wrong in annotations, and left out.

    Attributes:
        code: Kind of fault, in a few words.
        file: Annotation file.
        sentence: Says it all, with the place in the file.
        severity: ``error``, or ``warning`` where nothing is lost.
    """

    code: str
    file: str
    sentence: str
    severity: str = "error"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Annotated images with one list of classes.

    Attributes:
        name: What it is called in messages.
        samples: The images, in the order of the file.
        classes: Class names; ``category_id`` is an index into them.
        images: Folder of the images.
        source: Annotation file, or folder of label files.
        faults: What its annotations get wrong; none of it is in ``samples``.
    """

    name: str
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    images: Path
    source: Path
    faults: tuple[Fault, ...] = ()

    def class_counts(self) -> dict[str, int]:
        """Return class -> number of objects, crowds included."""
        counts = Counter(a["category_id"] for s in self.samples for a in s["annotations"])
        return {name: counts[index] for index, name in enumerate(self.classes)}

    def empty_share(self) -> float:
        """Return the share of images without objects, in [0, 1]."""
        empty = sum(not sample["annotations"] for sample in self.samples)
        return empty / max(1, len(self.samples))


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
    names = sorted(sizes)
    scenes = [names[index] for index in order]
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
    # What could not be read is told once.
    parts = (
        replace(dataset, name="train", samples=train),
        replace(dataset, name="val", samples=val, faults=()),
    )
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


def as_agreed(dataset: Dataset, difficult: Difficult, *, is_learnt: bool) -> Dataset:
    """Return the dataset with difficult objects counted as the use case wants them.

    Args:
        dataset: As its file has it.
        difficult: The use case's rule.
        is_learnt: Whether it is the training part.
    """
    if difficult is Difficult.count or (difficult is Difficult.learn and is_learnt):
        return dataset
    return replace(dataset, samples=tuple(map(_with_difficult_aside, dataset.samples)))


def scene_of(stem: str, pattern: re.Pattern[str]) -> str:
    """Return the scene that an image was cut from, by its path without suffix."""
    match = pattern.fullmatch(stem.rpartition("/")[2]) if pattern.pattern else None
    return match["scene"] if match else stem


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint to the nearest of the known names; nothing where none is near."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _with_difficult_aside(sample: Sample) -> Sample:
    annotations = sample["annotations"]
    if not any(each.get("difficult") for each in annotations):
        return sample
    aside: list[BoxAnnotation] = [
        {**each, "iscrowd": 1} if each.get("difficult") else each for each in annotations
    ]
    return {**sample, "annotations": aside}

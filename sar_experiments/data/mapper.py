"""SarMapper: one annotated sample -> one model input, the same for training and evaluation."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.structures import Boxes, Instances, PolygonMasks

from sar_experiments.data.augment import Augmentation, build_augmentation
from sar_experiments.data.chip import CROWD, Chip, Outline, resized, settled
from sar_experiments.data.images import read_pixels
from sar_experiments.data.transforms import Donor
from sar_experiments.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sar_experiments.config import AugmentConfig
    from sar_experiments.data.annotations import BoxAnnotation, Dataset, Sample
    from sar_experiments.data.radiometry import Radiometry

_DONOR_TRIES = 4


@dataclass(frozen=True, eq=False)
class SarMapper:
    """Read, encode, resize and, in training, augment.

    Picklable. Returns something for every sample: one that cannot be used is an error.

    Attributes:
        radiometry: Stored pixels -> [0, 1].
        augment: Sizes and transforms.
        is_train: Draw a size and augment; else resize alone.
        with_masks: Give outlines to the model; every annotation must have one.
        dataset: The training set; needed by class-aware policies, for how rare classes are, and
            by transforms that paste objects of other images.

    Raises:
        ConfigError: The augmentations do not fit each other or the classes.
        ValueError: ``dataset`` is needed and None.
    """

    radiometry: Radiometry
    augment: AugmentConfig
    is_train: bool = field(kw_only=True)
    with_masks: bool = field(default=False, kw_only=True)
    dataset: InitVar[Dataset | None] = field(default=None, kw_only=True)
    augmentation: Augmentation | None = field(init=False)
    donors: Any = field(init=False)

    def __post_init__(self, dataset: Dataset | None) -> None:
        """Build the transforms, so that a mistake in them shows before training starts."""
        augmentation = donors = None
        if self.is_train:
            if dataset is None and self.augment.policies:
                raise ValueError("dataset=None: class-aware policies need the training set")
            augmentation = build_augmentation(
                self.augment,
                classes=dataset.classes if dataset else (),
                samples=dataset.samples if dataset else (),
            )
            if augmentation.needs_donor:
                donors = _donors(dataset)
        object.__setattr__(self, "augmentation", augmentation)
        object.__setattr__(self, "donors", donors)

    def __call__(self, sample: Sample, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Return Detectron2's model input of one sample.

        Args:
            sample: One image and its annotations; not altered.
            rng: Of this image alone; needed in training.

        Returns:
            ``image`` (C, H, W) float32 in [0, 1], not normalised; ``instances`` with
            ``gt_boxes``, ``gt_classes`` and, with masks, ``gt_masks``, crowds left out;
            ``height``, ``width``, ``file_name`` and ``image_id`` of the file.

        Raises:
            DatasetError: The file cannot be read or does not fit its annotations.
            ConfigError: A transform cannot be used on such an image.
        """
        chip = self.chip(sample, rng)
        return {
            "file_name": sample["file_name"],
            "image_id": sample["image_id"],
            "height": sample["height"],
            "width": sample["width"],
            "image": torch.from_numpy(np.ascontiguousarray(chip.image.transpose(2, 0, 1))),
            "instances": _instances(chip, with_masks=self.with_masks),
        }

    def chip(
        self,
        sample: Sample,
        rng: np.random.Generator | None = None,
        *,
        augmentation: Augmentation | None = None,
    ) -> Chip:
        """Return what ``__call__`` makes a model input of, as a chip.

        Args:
            sample: One image and its annotations.
            rng: Needed in training.
            augmentation: In place of the mapper's own; counts in training alone.

        Raises:
            DatasetError: The file cannot be read or does not fit its annotations.
            ConfigError: A transform cannot be used on such an image.
        """
        if self.augmentation is None:
            chip = self._resized(self.read(sample), self.augment.min_size_test)
            return settled(chip, min_visible_share=self.augment.min_visible_share)
        if rng is None:
            raise ValueError("rng=None: a mapper with is_train=True needs a generator")
        sizes = self.augment.min_size_train
        min_size = sizes[rng.integers(len(sizes))] if sizes else 0
        chip = self._resized(self.read(sample), min_size)
        augment = augmentation or self.augmentation
        return augment(chip, rng, self._donor(sample, min_size))

    def read(self, sample: Sample) -> Chip:
        """Return the sample as a chip, encoded and at the size of its file."""
        path = Path(sample["file_name"])
        pixels, valid = read_pixels(path, nodata=self.radiometry.nodata)
        height, width = pixels.shape[:2]
        if (height, width) != (sample["height"], sample["width"]):
            msg = (
                f"{path} is {height} x {width}, but its annotations say"
                f" {sample['height']} x {sample['width']} (height x width)"
            )
            raise DatasetError(msg)
        try:
            image = self.radiometry.encode(pixels, valid=valid)
        except DatasetError as error:
            msg = f"{path}: {error}"
            raise DatasetError(msg) from error
        annotations = sample["annotations"]
        return Chip.of(
            image,
            [each["bbox"] for each in annotations],
            [CROWD if each["iscrowd"] else each["category_id"] for each in annotations],
            _outlines(annotations, required_for=path if self.with_masks else None),
        )

    def _resized(self, chip: Chip, min_size: int) -> Chip:
        """Bring the shortest edge to a size; 0 keeps the file's."""
        if min_size == 0:
            return chip
        longest = self.augment.max_size_train if self.is_train else self.augment.max_size_test
        height, width = ResizeShortestEdge.get_output_shape(
            *chip.image.shape[:2], min_size, longest
        )
        return resized(chip, height=height, width=width)

    def _donor(self, sample: Sample, min_size: int) -> Donor | None:
        """Return what draws another chip with objects, resized like the present one."""
        donors = self.donors
        if donors is None or len(donors) == 0:
            return None

        def draw(rng: np.random.Generator) -> Chip:
            other = donors[int(rng.integers(len(donors)))]
            for _ in range(_DONOR_TRIES):
                if other["image_id"] != sample["image_id"]:
                    break
                other = donors[int(rng.integers(len(donors)))]
            return self._resized(self.read(other), min_size)

        return draw


def _donors(dataset: Dataset | None) -> Any:  # noqa: ANN401 - Detectron2 is untyped
    """Return the samples with objects, serialised once for all loader processes."""
    if dataset is None:
        raise ValueError("dataset=None: transforms that paste objects need the training set")
    with_objects = [
        sample
        for sample in dataset.samples
        if any(not each["iscrowd"] for each in sample["annotations"])
    ]
    return DatasetFromList(with_objects) if with_objects else None


def _outlines(
    annotations: Sequence[BoxAnnotation], *, required_for: Path | None
) -> tuple[Outline, ...] | None:
    """Return all outlines, or None where one is missing."""
    outlines = []
    for each in annotations:
        polygons = each.get("segmentation")
        if isinstance(polygons, list) and polygons:
            outlines.append(tuple(np.asarray(flat, np.float64).reshape(-1, 2) for flat in polygons))
        elif each["iscrowd"]:
            outlines.append((_rectangle(each["bbox"]),))
        elif required_for is not None:
            msg = (
                f"{required_for}: annotation {each['id']} has no polygons as segmentation, which"
                " a model with masks learns from"
            )
            raise DatasetError(msg)
        else:
            return None
    return tuple(outlines)


def _rectangle(box: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    left, top, right, bottom = box
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def _instances(chip: Chip, *, with_masks: bool) -> Instances:
    """Return the targets; all fields exist for an image without objects too."""
    chip = chip.select(chip.classes != CROWD)
    instances = Instances(chip.image.shape[:2])
    instances.gt_boxes = Boxes(torch.from_numpy(chip.boxes.astype(np.float32)))
    instances.gt_classes = torch.from_numpy(chip.classes)
    if with_masks:
        outlines = chip.outlines or ()
        instances.gt_masks = PolygonMasks(
            [[polygon.reshape(-1) for polygon in outline] for outline in outlines]
        )
    return instances

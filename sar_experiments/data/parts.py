"""FRONT DOOR read_parts(): a use case's training, validation and test data."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sar_experiments import run_folder
from sar_experiments.data.annotations import (
    Dataset,
    Sample,
    as_agreed,
    limit_empty,
    split_by_scene,
)
from sar_experiments.data.coco import write_coco
from sar_experiments.data.formats import read_dataset
from sar_experiments.data.images import with_polarisations
from sar_experiments.data.simulator import SimulatorSettings, simulate_dataset
from sar_experiments.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sar_experiments.config import SimulatorConfig, SplitConfig, UsecaseConfig

logger = logging.getLogger(__name__)


def read_parts(usecase: UsecaseConfig, *, folder: Path | None = None) -> dict[str, Dataset]:
    """Read the parts that the use case has, all with the same classes in the same order.

    Without annotations for validation, a share of the training scenes validates; that split is
    written to ``folder`` as train.json and val.json, so that anyone can see and reuse it.

    Args:
        usecase: Where the data is.
        folder: Run folder for a split that is made here; None writes nothing.

    Returns:
        ``train``, ``val`` and, where the use case has one, ``test``; as the files have them.

    Raises:
        DatasetError: A file is missing or broken, or there is nothing to learn from.
        ConfigError: The use case names no data.
    """
    train = _read("train", usecase.train, usecase, usecase.classes)
    if train is None:
        msg = f"usecase={usecase.name}: usecase.train.images and .annotations are not set"
        raise ConfigError(msg)
    # Classes that the training data has decide for all parts, whatever ids their files give them.
    val = _read("val", usecase.val, usecase, train.classes)
    test = _read("test", usecase.test, usecase, train.classes)
    if val is None:
        train, val = split_by_scene(train, val_share=usecase.val_share, seed=usecase.split_seed)
        logger.info(
            "split by scene (seed %d): %d images train, %d validate",
            usecase.split_seed,
            len(train.samples),
            len(val.samples),
        )
        if folder is not None:
            write_coco(train, folder / run_folder.TRAIN_SPLIT)
            write_coco(val, folder / run_folder.VAL_SPLIT)
    parts = {"train": train, "val": val} | ({} if test is None else {"test": test})
    return {
        name: as_agreed(part, usecase.difficult, is_learnt=name == "train")
        for name, part in parts.items()
    }


def read_named_parts(usecase: UsecaseConfig) -> dict[str, Dataset]:
    """Read the parts that the use case names, as their files have them: nothing is split.

    Raises:
        DatasetError: A file is missing or broken.
    """
    parts: dict[str, Dataset] = {}
    classes: list[str] | tuple[str, ...] | None = usecase.classes
    for name in ("train", "val", "test"):
        part = _read(name, getattr(usecase, name), usecase, classes)
        if part is not None:
            parts[name] = part
            classes = part.classes
    return parts


def to_learn_from(train: Dataset, usecase: UsecaseConfig) -> Dataset:
    """Return the training part without surplus empty images.

    Raises:
        DatasetError: No image has an object.
    """
    train = limit_empty(train, usecase.max_empty_share, usecase.split_seed)
    if not any(sample["annotations"] for sample in train.samples):
        msg = f"{train.source} has no object in any image: there is nothing to learn"
        raise DatasetError(msg)
    return train


def describe(part: Dataset) -> str:
    """Say in one line what a part holds."""
    counts = part.class_counts()
    objects = ", ".join(f"{name} {count}" for name, count in counts.items())
    images = f"{len(part.samples)} images, {part.empty_share():.0%} without objects"
    found = f"{part.name}: {images}; {sum(counts.values())} objects ({objects})"
    faults = Counter(fault.code for fault in part.faults)
    told = ", ".join(f"{code} {count}" for code, count in sorted(faults.items()))
    return f"{found}; faults in the annotations: {told}" if faults else found


def simulate(
    simulator: SimulatorConfig, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Make the simulator's dataset, unless it is there already, and return its folder.

    Raises:
        ConfigError: The settings cannot be meant.
        DatasetError: The folder holds other data.
    """
    values = asdict(simulator)
    folder = Path(values.pop("folder"))
    values["classes"], values["class_weights"] = (
        tuple(values["classes"]),
        tuple(values["class_weights"]),
    )
    try:
        settings = SimulatorSettings(**values)
    except ValueError as error:
        msg = f"usecase.simulator: {error}"
        raise ConfigError(msg) from error
    simulate_dataset(settings, folder, progress=progress)
    return folder


def _read(
    name: str,
    part: SplitConfig,
    usecase: UsecaseConfig,
    classes: list[str] | tuple[str, ...] | None,
) -> Dataset | None:
    if part.annotations is None or _is_simulated_empty(name, usecase):
        return None
    dataset = read_dataset(
        Path(part.annotations),
        None if part.images is None else Path(part.images),
        name=name,
        classes=classes,
        scene_pattern=usecase.scene_pattern,
        form=usecase.format,
    )
    if usecase.polarisations:
        dataset = _of_several_files(dataset, usecase.polarisations)
    return dataset


def _is_simulated_empty(name: str, usecase: UsecaseConfig) -> bool:
    """Tell whether the simulator was told to make no image of a part: then there is none."""
    made = usecase.simulator
    return made is not None and getattr(made, f"{name}_images") == 0


def _of_several_files(dataset: Dataset, polarisations: list[str]) -> Dataset:
    """Let each sample name the files of all polarisations, see ``images.polarisation_files``."""
    samples = []
    for sample in dataset.samples:
        file = sample["file_name"]
        name = file.removeprefix(f"{dataset.images}/")  # what the folder is called does not count
        folder = file.removesuffix(name)
        together = with_polarisations(name, polarisations)
        samples.append(Sample(**{**sample, "file_name": folder + together}))
    return replace(dataset, samples=tuple(samples))

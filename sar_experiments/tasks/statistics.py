"""Mean and standard deviation of pixels: measured where nobody set them, kept with the run."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sar_experiments import run_folder
from sar_experiments.config import Config, RadiometryConfig, from_plain, to_yaml
from sar_experiments.data.radiometry import Radiometry, describe_difference
from sar_experiments.errors import DatasetError
from sar_experiments.model import weights
from sar_experiments.tasks.trained import with_radiometry

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

DIGITS = 4
"""Decimals of a measured number; the smallest std is one unit of the last."""
FAR_OFF = 1.5
"""Set and measured statistics that differ by more than this many std, or this factor, are named."""


def with_statistics(config: Config, folder: Path) -> Config:
    """Return the config with mean and std of the training images, where it leaves them open.

    The data check of this run has measured them, on valid pixels as the radiometry encodes them.
    A run that goes on keeps the numbers it began with, whatever became of the images since. The
    run's config.yaml is written anew.

    Raises:
        DatasetError: An image channel holds one value alone, or nothing.
    """
    measured = _measured(folder)
    if config.radiometry.mean is not None:
        _name_what_is_far_off(config.radiometry, measured)
        return config
    pointer = folder / run_folder.LAST_CHECKPOINT
    if pointer.is_file():
        last = folder / pointer.read_text(encoding="utf-8").strip()
        earlier = from_plain(weights.read_about(last).config, defaults=config).radiometry
        mean, std = earlier.mean or [], earlier.std or []
    else:
        mean, std = measured
    if not mean or min(std) <= 0:
        msg = (
            f"radiometry={config.radiometry.name}: the training images have mean {mean} and std"
            f" {std} after encoding, nothing to learn from; check radiometry.low, high and nodata"
        )
        raise DatasetError(msg)
    logger.info("measured on the training images: %s", as_overrides(mean, std))
    config = with_radiometry(config, replace(config.radiometry, mean=mean, std=std))
    run_folder.write_atomically(folder / run_folder.CONFIG, to_yaml(config))
    return config


def name_other_radiometry(config: Config) -> None:
    """Say so where training starts from weights that were trained with another radiometry.

    That is allowed, as new data may need it, but nothing learnt fits the first layers any more.
    """
    if config.model.weights in ("zoo", "none"):
        return
    about = weights.find_about(run_folder.resolve_weights(Path(config.model.weights)))
    if about is None:  # of another package
        return
    earlier, now = (
        replace(Radiometry.from_config(each.radiometry), mean=(), std=())
        for each in (from_plain(about.config, defaults=config), config)
    )
    difference = describe_difference(earlier, now)
    if difference:
        logger.warning("model.weights were trained with another radiometry: %s", difference)


def measured_overrides(folder: Path) -> str:
    """Return what the data check measured, as it is written on the command line."""
    return as_overrides(*_measured(folder))


def as_overrides(mean: Sequence[float], std: Sequence[float]) -> str:
    """Return the statistics as they are written on the command line."""
    lists = (",".join(f"{each:g}" for each in values) for values in (mean, std))
    return "radiometry.mean=[{}] radiometry.std=[{}]".format(*lists)


def _measured(folder: Path) -> tuple[list[float], list[float]]:
    """Return mean and std per channel, from the check.json of this run."""
    report = json.loads((folder / run_folder.CHECK).read_text(encoding="utf-8"))
    train = report["parts"]["train"]
    mean, std = ([round(each, DIGITS) for each in train[key]] for key in ("mean", "std"))
    return mean, std


def _name_what_is_far_off(
    radiometry: RadiometryConfig, measured: tuple[list[float], list[float]]
) -> None:
    """Say so where the statistics that are set are those of other images."""
    pairs = zip(radiometry.mean or [], radiometry.std or [], *measured, strict=False)
    if any(abs(a - c) > FAR_OFF * d or not d / FAR_OFF < b < d * FAR_OFF for a, b, c, d in pairs):
        logger.warning(
            "radiometry.mean=%s and std=%s are set, but the training images have mean %s and std"
            " %s; radiometry.mean=null radiometry.std=null takes theirs",
            radiometry.mean,
            radiometry.std,
            *measured,
        )

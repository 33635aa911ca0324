"""The config of a task on a trained network: the network is the checkpoint's."""

from __future__ import annotations

import logging
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from sar_experiments import run_folder
from sar_experiments.config import Config, RadiometryConfig, from_plain
from sar_experiments.data.radiometry import Radiometry, describe_difference
from sar_experiments.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)


class Trained(Protocol):
    """Who a checkpoint or an exported network is."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The run's config as plain values."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs."""
        ...


def as_trained(config: Config, about: Trained, overrides: list[str]) -> Config:
    """Return the config of an evaluation: the network of the checkpoint, the data of the command.

    Where the command names no data, it is the data of the run. Image sizes, radiometry, classes
    and all keys of the model are the checkpoint's, since its weights mean nothing without them.

    Raises:
        ConfigError: The command asks for another model than the checkpoint's, or, without
            ``force``, for another radiometry.
    """
    trained = from_plain(about.config, defaults=config)
    asked = _asked(overrides, "model")
    if asked and config.model != trained.model:
        msg = (
            f"{', '.join(asked)} differs from what {config.weights} was trained with;"
            " leave model out, the checkpoint carries its own"
        )
        raise ConfigError(msg)
    if _asked(overrides, "radiometry"):
        trained = _with_radiometry_of(config, trained)
    names_usecase = any(each.lstrip("+").startswith("usecase") for each in overrides)
    usecase = config.usecase if names_usecase else trained.usecase
    if usecase.train.annotations is None and usecase.val.annotations is None:
        usecase = trained.usecase
    return replace(
        config,
        usecase=replace(usecase, classes=list(about.classes)),
        model=trained.model,
        radiometry=trained.radiometry,
        d2=trained.d2,
        augment=trained.augment,
    )


def _with_radiometry_of(config: Config, trained: Config) -> Config:
    """Return the config that was trained, with the command's radiometry where that is forced."""
    wanted = config.radiometry
    if wanted.mean is None:  # measured then, not now
        wanted = replace(wanted, mean=trained.radiometry.mean, std=trained.radiometry.std)
    difference = describe_difference(
        Radiometry.from_config(trained.radiometry), Radiometry.from_config(wanted)
    )
    if not difference:
        return trained
    if not config.force:
        msg = (
            f"radiometry={wanted.name} differs from what {config.weights} was trained with"
            f" ({trained.radiometry.name}): {difference}. Leave radiometry out, the checkpoint"
            " carries its own, or set force=true to use this one all the same"
        )
        raise ConfigError(msg)
    logger.warning("forced: another radiometry than the checkpoint's: %s", difference)
    return with_radiometry(trained, wanted)


def with_radiometry(config: Config, radiometry: RadiometryConfig) -> Config:
    """Return the config with another radiometry, known to Detectron2 too."""
    tree = deepcopy(config.d2)
    tree["MODEL"]["PIXEL_MEAN"] = radiometry.mean
    tree["MODEL"]["PIXEL_STD"] = [each / config.model.input_std for each in radiometry.std or []]
    return replace(config, radiometry=radiometry, d2=tree)


def _asked(overrides: list[str], group: str) -> list[str]:
    return [each for each in overrides if each.lstrip("+").split("=")[0].split(".")[0] == group]


def overrides_of(folder: Path) -> list[str]:
    """Return what the command line of a run changed."""
    result = run_folder.read_result(folder)
    return list(result.overrides) if result is not None else []

"""task=evaluate: measure a checkpoint again, or a CFAR."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detectron2.utils import comm

from sar_experiments import ranks, run_folder
from sar_experiments.config import Config, from_plain, to_yaml
from sar_experiments.data.radiometry import Radiometry, describe_difference
from sar_experiments.errors import ConfigError
from sar_experiments.exit_codes import DONE
from sar_experiments.model import build, weights
from sar_experiments.tasks.cfar import detect_part
from sar_experiments.tasks.measuring import measure_parts, record_parts
from sar_experiments.tasks.parts import load_parts, usable_parts
from sar_experiments.tasks.statistics import with_radiometry

if TYPE_CHECKING:
    from sar_experiments.tasks.interruption import Interruption

logger = logging.getLogger(__name__)


def run(config: Config, folder: Path, _interruption: Interruption) -> int:
    """Measure a checkpoint; the network, its classes and radiometry are the checkpoint's."""
    if config.model.cfar is not None:
        return _measure_cfar(config, folder)
    assert config.weights is not None  # the door checked
    path = run_folder.resolve_weights(Path(config.weights))
    about = weights.read_about(path)
    config = as_trained(config, about, overrides_of(folder))
    parts = ranks.from_first(lambda: usable_parts(config, load_parts(config, folder), folder))
    spec = build.ModelSpec(config.model.base, config.d2, about.classes)
    cfg = build.detectron2_config(spec, device=config.hardware.device.name)
    if comm.is_main_process():
        run_folder.write_atomically(folder / run_folder.CONFIG, to_yaml(config))
        run_folder.write_atomically(folder / run_folder.DETECTRON2, cfg.dump())
    model = build.build_model(cfg)
    weights.load_exactly(model, path)
    logger.info("model: %s, %s, step %d", config.model.name, path, about.step)
    measure_parts(config, folder, model, parts)
    return DONE


def _measure_cfar(config: Config, folder: Path) -> int:
    """Measure a CFAR, which has no checkpoint: radiometry and classes are the command's."""
    parts = ranks.from_first(lambda: usable_parts(config, load_parts(config, folder), folder))
    record_parts(config, folder, parts, lambda part: detect_part(config, part))
    return DONE


def as_trained(config: Config, about: weights.About, overrides: list[str]) -> Config:
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


def _asked(overrides: list[str], group: str) -> list[str]:
    return [each for each in overrides if each.lstrip("+").split("=")[0].split(".")[0] == group]


def overrides_of(folder: Path) -> list[str]:
    """Return what the command line of a run changed."""
    result = run_folder.read_result(folder)
    return list(result.overrides) if result is not None else []

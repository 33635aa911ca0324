"""The config of a task on a trained network: the network is the checkpoint's."""

from __future__ import annotations

import logging
import re
from copy import deepcopy
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Protocol

from sar_experiments import run_folder
from sar_experiments.config import Config, RadiometryConfig, from_plain
from sar_experiments.data.radiometry import Radiometry, describe_difference
from sar_experiments.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sar_experiments.config import AugmentConfig, EvaluationConfig

logger = logging.getLogger(__name__)

INFERENCE_KEYS = re.compile(
    r"TEST\.[\w.]+"
    r"|MODEL\.[\w.]+\.(NMS_THRESH\w*|SCORE_THRESH_TEST|\w*TOPK_(CANDIDATES_)?TEST)"
)
"""Keys of Detectron2 that may change after a training: weights mean the same with them."""
OF_EVALUATION = {  # as conf/d2/default.yaml maps them
    "min_score": ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "MODEL.RETINANET.SCORE_THRESH_TEST"),
    "max_detections": ("TEST.DETECTIONS_PER_IMAGE",),
}
TEST_SIZES = ("min_size_test", "max_size_test")


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


def as_trained(
    config: Config, about: Trained, overrides: list[str], *, is_exported: bool = False
) -> Config:
    """Return the config of an evaluation: the network of the checkpoint, the data of the command.

    Where the command names no data, it is the data of the run. Image sizes, radiometry, classes
    and all keys of the model are the checkpoint's, since its weights mean nothing without them.
    How detections are selected and measured is the run's too, but for what the command line sets:
    ``evaluation``, the sizes of test images, and the INFERENCE_KEYS.

    Args:
        config: Of the command.
        about: The checkpoint or exported network.
        overrides: What the command line set.
        is_exported: The network is a file of ONNX, in which the INFERENCE_KEYS are fixed.

    Raises:
        ConfigError: The command asks for another model or augmentation or other keys of
            Detectron2 than the checkpoint's, or, without ``force``, for another radiometry.
    """
    trained = from_plain(about.config, defaults=config)
    asked = _asked(overrides, "model")
    if asked and config.model != trained.model:
        msg = (
            f"{', '.join(asked)} differs from what {config.weights} was trained with;"
            " leave model out, the checkpoint carries its own"
        )
        raise ConfigError(msg)
    trained = replace(
        trained,
        d2=_with_inference_keys(config, trained, overrides, is_exported=is_exported),
        augment=_with_test_sizes(config, trained, overrides),
        evaluation=_with_asked(config, trained, overrides),
    )
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
        evaluation=trained.evaluation,
    )


def _with_inference_keys(
    config: Config, trained: Config, overrides: list[str], *, is_exported: bool
) -> dict[str, Any]:
    """Return the keys of Detectron2 that were trained, with the inference keys that are asked."""
    tree, refused, changed = deepcopy(trained.d2), [], []
    for override, path in _asked_of_detectron2(overrides):
        value = value_at(config.d2, path)
        if value == value_at(trained.d2, path):
            continue
        if value is None or INFERENCE_KEYS.fullmatch(path) is None:
            refused.append(override)
            continue
        changed.append(override)
        *groups, name = path.split(".")
        group = tree
        for each in groups:
            group = group.setdefault(each, {})
        group[name] = value
    if refused:
        raise ConfigError(_refusal(config, refused))
    if changed and is_exported:
        msg = (
            f"{_named(changed)} differs from what is fixed in {config.weights};"
            " repeat task=export with it, or predict without runtime=onnx"
        )
        raise ConfigError(msg)
    return tree


def _asked_of_detectron2(overrides: list[str]) -> Iterator[tuple[str, str]]:
    """Yield overrides with the paths of the keys of Detectron2 that they set; "" is all."""
    for name, paths in OF_EVALUATION.items():
        for each in _asked(overrides, "evaluation"):
            if _key(each) in ("evaluation", f"evaluation.{name}"):
                yield from ((each, path) for path in paths)
    for each in _asked(overrides, "d2"):
        yield each, _key(each).removeprefix("d2").removeprefix(".")


def value_at(tree: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - whatever the key holds
    """Return the value at a path with dots, None if there is none."""
    value: Any = tree
    for name in filter(None, path.split(".")):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _with_test_sizes(config: Config, trained: Config, overrides: list[str]) -> AugmentConfig:
    """Return the augmentation that was trained with, with the sizes of test images asked for."""
    asked = {each: _key(each).split(".") for each in _asked(overrides, "augment")}
    names = {key[1] for key in asked.values() if len(key) > 1}
    sizes = {name: getattr(config.augment, name) for name in TEST_SIZES if name in names}
    augment = replace(trained.augment, **sizes)
    wanted, own = (_without_radiometry(asdict(each)) for each in (config.augment, augment))
    refused = [
        override
        for override, (_, *path) in asked.items()
        if (wanted.get(path[0]) != own.get(path[0]) if path else wanted != own)
    ]
    if refused:
        raise ConfigError(_refusal(config, refused))
    return augment


def _without_radiometry(plain: Any) -> Any:  # noqa: ANN401 - any plain value
    """Leave out the copies of the radiometry that transforms hold; it is compared by itself."""
    if not isinstance(plain, dict):
        return plain
    return {k: _without_radiometry(v) for k, v in plain.items() if k != "radiometry"}


def _with_asked(config: Config, trained: Config, overrides: list[str]) -> EvaluationConfig:
    """Return how the run was measured, with what the command line asks for."""
    keys = [_key(each) for each in _asked(overrides, "evaluation")]
    if "evaluation" in keys:
        return config.evaluation
    names = {key.split(".")[1] for key in keys}
    return replace(trained.evaluation, **{name: getattr(config.evaluation, name) for name in names})


def _named(overrides: list[str]) -> str:
    return ", ".join(dict.fromkeys(each.lstrip("+") for each in overrides))


def _refusal(config: Config, refused: list[str]) -> str:
    return (
        f"{_named(refused)} differs from what {config.weights} was trained with; leave it out,"
        " the checkpoint carries its own (evaluation.*, augment.min_size_test,"
        " augment.max_size_test, d2.TEST.* and d2.MODEL's *NMS_THRESH*, SCORE_THRESH_TEST and"
        " *TOPK_TEST may be set anew)"
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
    return [each for each in overrides if _key(each).split(".")[0] == group]


def _key(override: str) -> str:
    return override.lstrip("+~").split("=")[0]


def overrides_of(folder: Path) -> list[str]:
    """Return what the command line of a run changed."""
    result = run_folder.read_result(folder)
    return list(result.overrides) if result is not None else []

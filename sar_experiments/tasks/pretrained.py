"""Training that starts from weights of this package: the network is laid out as they learnt."""

from __future__ import annotations

import logging
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_experiments import run_folder
from sar_experiments.config import Config, from_plain, to_yaml
from sar_experiments.model import weights
from sar_experiments.tasks.trained import overrides_of, value_at, with_radiometry

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

NORMS = ("MODEL.RESNETS.NORM", "MODEL.FPN.NORM")
STRIDE = "MODEL.RESNETS.STRIDE_IN_1X1"
INPUT_STD = "model.input_std"
"""With the stride, what no tensor tells: other values than in training, and features are wrong."""

_BATCH_NORMS = ("BN", "FrozenBN", "SyncBN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")


def with_layout_of_weights(config: Config, folder: Path) -> Config:
    """Return the config with the norms, strides and input that ``model.weights`` learnt with.

    What conf/model chooses by ``model.weights`` suits the zoo's weights or none; a path may be of
    either. The command line is obeyed, and named where it contradicts the weights. The run's
    config.yaml is written anew. Weights of another package do not say what they learnt with.

    Raises:
        CheckpointError: The file cannot be read.
    """
    if config.model.weights in ("zoo", "none"):
        return config
    path = run_folder.resolve_weights(Path(config.model.weights))
    about = weights.find_about(path)
    if about is None:
        logger.info(
            "%s does not say what it learnt with: model.input_std=%g and d2.%s=%s are taken for it",
            path,
            config.model.input_std,
            STRIDE,
            value_at(config.d2, STRIDE),
        )
        return config
    changes = dict(_differences(config, from_plain(about.config, defaults=config)))
    asked = {key: value for key, value in changes.items() if _is_asked(key, folder)}
    for key, value in asked.items():
        logger.warning("%s is set, but model.weights=%s learnt with %s", key, path, value)
    changes = {key: value for key, value in changes.items() if key not in asked}
    if not changes:
        return config
    logger.info(
        "as %s learnt: %s", path, ", ".join(f"{key}={value}" for key, value in changes.items())
    )
    config = _with(config, changes, folder)
    run_folder.write_atomically(folder / run_folder.CONFIG, to_yaml(config))
    return config


def _differences(config: Config, trained: Config) -> Iterator[tuple[str, Any]]:
    """Yield config key -> value of the training, where weights mean another thing with ours."""
    if trained.model.input_std != config.model.input_std:
        yield INPUT_STD, trained.model.input_std
    for path in (*NORMS, STRIDE):
        ours, theirs = (value_at(each.d2, path) for each in (config, trained))
        are_alike = path in NORMS and ours in _BATCH_NORMS and theirs in _BATCH_NORMS
        if theirs is not None and ours != theirs and not are_alike:
            yield f"d2.{path}", theirs


def _is_asked(key: str, folder: Path) -> bool:
    """Tell whether the command line sets a key, or a group around it; model=NAME is a choice."""
    asked = [each.lstrip("+").split("=")[0] for each in overrides_of(folder)]
    return any("." in each and f"{key}.".startswith(f"{each}.") for each in asked)


def _with(config: Config, changes: dict[str, Any], folder: Path) -> Config:
    tree = deepcopy(config.d2)
    for key, value in changes.items():
        if key == INPUT_STD:
            continue
        *groups, name = key.removeprefix("d2.").split(".")
        group = tree
        for each in groups:
            group = group.setdefault(each, {})
        group[name] = value
    config = replace(config, d2=tree)
    if INPUT_STD not in changes:
        return config
    config = replace(config, model=replace(config.model, input_std=changes[INPUT_STD]))
    if config.radiometry.mean is None or _is_asked("d2.MODEL.PIXEL_STD", folder):
        return config  # in the first case PIXEL_STD follows with the measured statistics
    return with_radiometry(config, config.radiometry)

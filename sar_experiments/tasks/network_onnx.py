"""A trained network for prediction, by ONNX Runtime on the CPU; imports no torch."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sar_experiments import run_folder
from sar_experiments.config import to_yaml
from sar_experiments.data.radiometry import Radiometry, describe_difference
from sar_experiments.errors import ConfigError
from sar_experiments.export.session import open_onnx
from sar_experiments.tasks.detectors import Choice, min_scores_of, same_detector, scale_of
from sar_experiments.tasks.trained import as_trained, overrides_of

if TYPE_CHECKING:
    from sar_experiments.config import Config

logger = logging.getLogger(__name__)


def choose(config: Config, folder: Path) -> Choice:
    """Return the network of an ONNX file; see ``choose_detector``."""
    assert config.weights is not None  # the door checked
    path = run_folder.resolve_onnx(Path(config.weights))
    detector = open_onnx(path, threads=0)
    about = detector.about
    config = as_trained(config, about, overrides_of(folder), is_exported=True)
    differing = describe_difference(detector.radiometry, Radiometry.from_config(config.radiometry))
    if differing:
        msg = f"{path}: radiometry and config of the file contradict each other: {differing}"
        raise ConfigError(msg)
    run_folder.write_atomically(folder / run_folder.CONFIG, to_yaml(config))
    logger.info("model: %s, %s, step %d, ONNX Runtime", config.model.name, path, about.step)
    detector = replace(detector, scale=scale_of(config, about.chip_px))
    status = path.stat()
    return Choice(
        same_detector(detector, config.radiometry),
        about.classes,
        config.radiometry.channels,
        config.radiometry.nodata,
        min_scores_of(config, about.thresholds, about.classes),
        f"{path} {status.st_size} {status.st_mtime_ns} {detector.scale}",
        native_px=about.chip_px,
        lengths_px=about.lengths_px,
    )

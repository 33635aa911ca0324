"""A trained network for prediction, by PyTorch."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from sar_experiments import run_folder
from sar_experiments.config import Config, Device, Precision, to_plain, to_yaml
from sar_experiments.data.radiometry import Radiometry
from sar_experiments.model import build, weights
from sar_experiments.model.inference import for_inference
from sar_experiments.predict.network import NetworkDetector
from sar_experiments.tasks.detectors import (
    Choice,
    min_scores_of,
    same_detector,
    scale_of,
    stored_thresholds,
)
from sar_experiments.tasks.device import autocast_dtype
from sar_experiments.tasks.trained import as_trained, overrides_of

logger = logging.getLogger(__name__)


def choose(config: Config, folder: Path) -> Choice:
    """Return the network of a checkpoint; see ``choose_detector``."""
    assert config.weights is not None  # the door checked
    path = run_folder.resolve_weights(Path(config.weights))
    about = weights.read_about(path)
    config = as_trained(config, about, overrides_of(folder))
    run_folder.write_atomically(folder / run_folder.CONFIG, to_yaml(config))
    spec = build.ModelSpec(config.model.base, config.d2, about.classes)
    cfg = build.detectron2_config(spec, device=config.hardware.device.name)
    run_folder.write_atomically(folder / run_folder.DETECTRON2, cfg.dump())
    model = build.build_model(cfg)
    weights.load_exactly(model, path)
    detector = NetworkDetector(
        for_inference(model),
        Radiometry.from_config(config.radiometry),
        about.classes,
        scale_of(config, about.chip_px),
        _precision(config),
    )
    logger.info("model: %s, %s, step %d", config.model.name, path, about.step)
    status = path.stat()
    # What the command line may set, and changes detections; a log of tiles knows it by this.
    settings = f"{detector.scale} {detector.autocast} {config.d2} {to_plain(config)['radiometry']}"
    return Choice(
        same_detector(detector, config.radiometry),
        about.classes,
        config.radiometry.channels,
        config.radiometry.nodata,
        min_scores_of(
            config, stored_thresholds(about.thresholds, path, about.classes), about.classes
        ),
        f"{path} {status.st_size} {status.st_mtime_ns} {settings}",
        native_px=about.chip_px,
        lengths_px=about.lengths_px,
    )


def _precision(config: Config) -> torch.dtype | None:
    """Return the type of the forward pass; None is float32.

    Unlike training, prediction takes bf16 on a CPU that is asked to.
    """
    if config.hardware.device is Device.cpu and config.hardware.precision is Precision.bf16:
        return torch.bfloat16
    return autocast_dtype(config)

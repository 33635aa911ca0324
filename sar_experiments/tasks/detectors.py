"""Which detector a prediction uses: the network that ``weights`` names, or a CFAR."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sar_experiments import run_folder
from sar_experiments.config import Config, Device, Precision, to_yaml
from sar_experiments.data.radiometry import Radiometry
from sar_experiments.errors import SceneError
from sar_experiments.model import build, weights
from sar_experiments.model.inference import for_inference
from sar_experiments.predict.network import NetworkDetector
from sar_experiments.tasks.cfar import make_cfar
from sar_experiments.tasks.evaluate import as_trained, overrides_of
from sar_experiments.tasks.train import autocast_dtype

if TYPE_CHECKING:
    from sar_experiments.predict.detector import DetectorFactory, SceneHeader, TileDetector

logger = logging.getLogger(__name__)

DEFAULT_MIN_SCORE = 0.5


@dataclass(frozen=True)
class Choice:
    """A detector and what its scenes must be like.

    Attributes:
        detector_for: Makes it.
        classes: What it finds.
        channels: Bands that it takes; None takes any number.
        nodata: What its radiometry calls no data.
        min_score: Below it detections are dropped.
        identity: Names it and its version.
        native_px: Tile size that suits it; None where nothing tells.
    """

    detector_for: DetectorFactory
    classes: tuple[str, ...]
    channels: int | None
    nodata: float | None
    min_score: float
    identity: str
    native_px: int | None = None


def choose_detector(config: Config, folder: Path) -> Choice:
    """Return the detector that a config asks for; writes what it is into the run folder.

    Raises:
        ConfigError: The command asks for another model or radiometry than the checkpoint's.
        CheckpointError: The weights cannot be read.
    """
    return _network(config, folder) if config.model.cfar is None else _cfar(config)


def _cfar(config: Config) -> Choice:
    assert config.model.cfar is not None
    name = config.model.cfar.class_name
    classes = tuple(config.usecase.classes or ([name] if name else ["bright"]))

    def detector_for(header: SceneHeader) -> TileDetector:
        return make_cfar(config, classes, pixel_m=header.pixel_m)

    score = config.predict.min_score
    return Choice(
        detector_for,
        classes,
        config.radiometry.channels,
        config.radiometry.nodata,
        DEFAULT_MIN_SCORE if score is None else score,  # what a CFAR's scores begin at
        repr(config.model.cfar),
    )


def _network(config: Config, folder: Path) -> Choice:
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
    scale = _scale(config, about)
    logger.info("model: %s, %s, step %d", config.model.name, path, about.step)
    detector = NetworkDetector(
        for_inference(model),
        Radiometry.from_config(config.radiometry),
        about.classes,
        scale,
        _precision(config),
    )
    channels = config.radiometry.channels

    def detector_for(header: SceneHeader) -> TileDetector:
        if len(header.bands) != channels and channels != 1 and len(header.bands) != 1:
            msg = (
                f"{header.files[0]} has the bands {', '.join(header.bands)}, the network takes"
                f" {channels} (radiometry.channels); choose with predict.bands=[…]"
            )
            raise SceneError(msg)
        return detector

    status = path.stat()
    return Choice(
        detector_for,
        about.classes,
        channels,
        config.radiometry.nodata,
        _min_score(config, path),
        f"{path} {status.st_size} {status.st_mtime_ns}",
        native_px=about.chip_px,
    )


def _precision(config: Config) -> torch.dtype | None:
    """Return the type of the forward pass; None is float32.

    Unlike training, prediction takes bf16 on a CPU that is asked to.
    """
    if config.hardware.device is Device.cpu and config.hardware.precision is Precision.bf16:
        return torch.bfloat16
    return autocast_dtype(config)


def _scale(config: Config, about: weights.About) -> float:
    """Return the factor by which validation images were enlarged, or the one that was set."""
    if config.predict.scale is not None:
        return config.predict.scale
    min_size = config.augment.min_size_test
    if min_size == 0:
        return 1.0
    if about.chip_px is None:
        logger.warning(
            "the checkpoint does not say how large its training images were; they were resized to"
            " augment.min_size_test=%d, tiles are not: set predict.scale to that over their"
            " shortest edge",
            min_size,
        )
        return 1.0
    scale = min_size / about.chip_px
    if scale != 1:
        logger.info(
            "scale: tiles are resized by %.3g, as training images of %d px were to %d px",
            scale,
            about.chip_px,
            min_size,
        )
    return scale


def _min_score(config: Config, checkpoint: Path) -> float:
    if config.predict.min_score is not None:
        return config.predict.min_score
    result = run_folder.read_result(checkpoint.parent)
    threshold = result.metrics.get("threshold") if result is not None else None
    if threshold is None:
        logger.info("min_score: %g, as no run tells its best", DEFAULT_MIN_SCORE)
        return DEFAULT_MIN_SCORE
    logger.info("min_score: %.3f, best F1 on the run's validation part", threshold)
    return threshold

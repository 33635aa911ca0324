"""Which detector a prediction uses: a network by PyTorch or ONNX Runtime, or a CFAR.

Imports no torch: with runtime=onnx a prediction does without.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sar_experiments import run_folder
from sar_experiments.config import to_plain
from sar_experiments.errors import SceneError
from sar_experiments.tasks.units import check_units

if TYPE_CHECKING:
    from pathlib import Path

    from sar_experiments.config import Config, RadiometryConfig
    from sar_experiments.predict.detector import DetectorFactory, SceneHeader, TileDetector

logger = logging.getLogger(__name__)

DEFAULT_MIN_SCORE = 0.5
BRIGHT = "bright"
"""Class of what a CFAR finds where the use case names none."""


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
        grid_px: On which tiles had better begin; see ``plan_tiles``.
    """

    detector_for: DetectorFactory
    classes: tuple[str, ...]
    channels: int | None
    nodata: float | None
    min_score: float
    identity: str
    native_px: int | None = None
    grid_px: int = 1


def choose_detector(config: Config, folder: Path) -> Choice:
    """Return the detector that a config asks for; writes what it is into the run folder.

    Raises:
        ConfigError: The command asks for another model or radiometry than the checkpoint's.
        CheckpointError: The weights cannot be read.
    """
    if config.model.cfar is not None:
        return _cfar(config)
    by_runtime = importlib.import_module(f"sar_experiments.tasks.network_{config.runtime.name}")
    choice = by_runtime.choose(config, folder)
    assert isinstance(choice, Choice)
    return choice


def same_detector(detector: TileDetector, radiometry: RadiometryConfig) -> DetectorFactory:
    """Return a factory of one network for every scene, which refuses other bands and units.

    Raises:
        SceneError: When called with a scene of other bands or units.
    """

    def detector_for(header: SceneHeader) -> TileDetector:
        _check_bands(header, radiometry.channels, "the network")
        check_units(header, radiometry, "the network")
        return detector

    return detector_for


def _check_bands(header: SceneHeader, channels: int, who: str) -> None:
    """Refuse other bands than those of the radiometry; whether several are equal, tiles tell."""
    if len(header.bands) != channels and channels != 1 and len(header.bands) != 1:
        msg = (
            f"{header.files[0]} has the bands {', '.join(header.bands)}, {who} takes"
            f" {channels} (radiometry.channels); choose with predict.bands=[…]"
        )
        raise SceneError(msg)


def scale_of(config: Config, chip_px: int | None) -> float:
    """Return the factor by which validation images were enlarged, or the one that was set.

    Args:
        config: As trained.
        chip_px: Shortest edge of the training images; None if the checkpoint does not say.
    """
    if config.predict.scale is not None:
        return config.predict.scale
    min_size = config.augment.min_size_test
    if min_size == 0:
        return 1.0
    if chip_px is None:
        logger.warning(
            "the checkpoint does not say how large its training images were; they were resized to"
            " augment.min_size_test=%d, tiles are not: set predict.scale to that over their"
            " shortest edge",
            min_size,
        )
        return 1.0
    scale = min_size / chip_px
    if scale != 1:
        logger.info(
            "scale: tiles are resized by %.3g, as training images of %d px were to %d px",
            scale,
            chip_px,
            min_size,
        )
    return scale


def min_score_of(config: Config, best: float | None) -> float:
    """Return the score below which detections are dropped.

    Args:
        config: Of the prediction.
        best: The run's score of the best F1; None if unknown.
    """
    if config.predict.min_score is not None:
        return config.predict.min_score
    if best is None:
        logger.info(
            "min_score: %g, as no run tells its best; set predict.min_score", DEFAULT_MIN_SCORE
        )
        return DEFAULT_MIN_SCORE
    logger.info("min_score: %.3f, best F1 on the run's validation part", best)
    return best


def best_score(checkpoint: Path) -> float | None:
    """Return the score of the best F1 that the run of a checkpoint recorded."""
    result = run_folder.read_result(checkpoint.parent)
    return result.metrics.get("threshold") if result is not None else None


def _cfar(config: Config) -> Choice:
    from sar_experiments.tasks.cfar import make_cfar  # late: SciPy's distributions are 18 MB

    assert config.model.cfar is not None
    classes = tuple(config.usecase.classes or (config.model.cfar.class_name or BRIGHT,))
    settings = {name: to_plain(config)[name] for name in ("model", "radiometry", "usecase")}

    def detector_for(header: SceneHeader) -> TileDetector:
        _check_bands(header, config.radiometry.channels, "the CFAR")
        check_units(header, config.radiometry, "the CFAR")
        return make_cfar(config, classes, header.files, pixel_m=header.pixel_m)

    return Choice(
        detector_for,
        classes,
        config.radiometry.channels,
        config.radiometry.nodata,
        config.predict.min_score or 0.0,  # an object has at least 0.5
        f"{settings}",
    )

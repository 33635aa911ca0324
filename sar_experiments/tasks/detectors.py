"""Which detector a prediction uses: a network by PyTorch or ONNX Runtime, or a CFAR.

Imports no torch: with runtime=onnx a prediction does without.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sar_experiments.config import to_plain
from sar_experiments.errors import CheckpointError, ConfigError, SceneError
from sar_experiments.tasks.units import check_units
from sar_experiments.thresholds import DEFAULT_SCORE, UNKNOWN, Thresholds, listed, of_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sar_experiments.config import Config, RadiometryConfig
    from sar_experiments.predict.detector import DetectorFactory, SceneHeader, TileDetector

logger = logging.getLogger(__name__)

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
        min_scores: Class name -> score below which its detections are dropped.
        identity: Names it and its version.
        native_px: Tile size that suits it; None where nothing tells.
        lengths_px: How many of the objects that it learnt from are so long; None likewise.
    """

    detector_for: DetectorFactory
    classes: tuple[str, ...]
    channels: int | None
    nodata: float | None
    min_scores: Mapping[str, float]
    identity: str
    native_px: int | None = None
    lengths_px: Sequence[Sequence[int]] | None = None


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


def min_scores_of(
    config: Config, stored: Thresholds | None, classes: Sequence[str]
) -> dict[str, float]:
    """Return the score of each class below which detections are dropped, and say them.

    Args:
        config: Of the prediction; what it sets counts more than what is stored.
        stored: The run's thresholds; None if unknown.
        classes: Of the detector.

    Raises:
        ConfigError: ``predict.min_score`` names a class that the detector does not know.
    """
    asked = asked_scores(config.predict.min_score, classes)
    own = stored or Thresholds.alike(classes, DEFAULT_SCORE, UNKNOWN)
    scores = {**own.scores, **asked}
    if len(asked) == len(classes):
        logger.info("min_score: %s (predict.min_score)", listed(scores))
        return scores
    also = f"; {', '.join(asked)} by predict.min_score" if asked else ""
    logger.info("min_score: %s (%s%s)", listed(scores), own.origin, also)
    for name, doubt in own.doubts().items():
        if name not in asked:
            logger.warning("%s; predict.min_score={%s: …} sets another", doubt, name)
    return scores


def asked_scores(
    min_score: float | Mapping[str, float] | None, classes: Sequence[str]
) -> dict[str, float]:
    """Return the scores that ``predict.min_score`` sets, by class.

    Raises:
        ConfigError: It names a class that is not there.
    """
    if min_score is None:
        return {}
    if not isinstance(min_score, Mapping):
        return dict.fromkeys(classes, float(min_score))
    by_name = {str(name): score for name, score in min_score.items()}  # 1 may be a class
    unknown = [name for name in by_name if name not in classes]
    if unknown:
        msg = (
            f"predict.min_score names {', '.join(unknown)}, which the detector does not know;"
            f" its classes are {', '.join(classes)}"
        )
        raise ConfigError(msg)
    return {name: float(score) for name, score in by_name.items()}


def stored_thresholds(
    kept: Mapping[str, Any] | None, checkpoint: Path, classes: Sequence[str]
) -> Thresholds | None:
    """Return the thresholds that belong to a checkpoint; None where nothing tells them.

    Args:
        kept: What the checkpoint itself holds; older ones hold nothing, and their run is asked.
        checkpoint: The file.
        classes: Of the network.

    Raises:
        CheckpointError: They are broken.
    """
    try:
        if kept is not None:
            return Thresholds.from_plain(kept, classes)
        return of_run(checkpoint.parent, classes)
    except ValueError as error:
        msg = f"{checkpoint}: {error}"
        raise CheckpointError(msg) from error


def _cfar(config: Config) -> Choice:
    from sar_experiments.tasks.cfar import make_cfar  # late: SciPy's distributions are 18 MB

    assert config.model.cfar is not None
    classes = tuple(config.usecase.classes or (config.model.cfar.class_name or BRIGHT,))
    settings = {name: to_plain(config)[name] for name in ("model", "radiometry", "usecase")}

    def detector_for(header: SceneHeader) -> TileDetector:
        _check_bands(header, config.radiometry.channels, "the CFAR")
        check_units(header, config.radiometry, "the CFAR", is_encoded=False)
        return make_cfar(config, classes, header.files, pixel_m=header.pixel_m)

    return Choice(
        detector_for,
        classes,
        config.radiometry.channels,
        config.radiometry.nodata,
        # What exceeds the false-alarm rate is an object, and has at least 0.5.
        {**dict.fromkeys(classes, 0.0), **asked_scores(config.predict.min_score, classes)},
        f"{settings}",
    )

"""A CFAR on the images of a dataset; made from the config, which also says how large pixels are."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sar_experiments.cfar.detect import Cfar, windows_px
from sar_experiments.cores import usable_cores
from sar_experiments.data.images import read_pixels
from sar_experiments.data.radiometry import Radiometry
from sar_experiments.errors import ConfigError, DatasetError
from sar_experiments.tasks.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sar_experiments.config import Config
    from sar_experiments.data.annotations import Dataset, Sample
    from sar_experiments.detections import Detections

logger = logging.getLogger(__name__)


def make_cfar(
    config: Config,
    classes: tuple[str, ...],
    files: Iterable[Path],
    *,
    pixel_m: tuple[float, float] | None,
) -> Cfar:
    """Build the CFAR of a config and say what it does.

    Args:
        config: Of a run with model=cfar.
        classes: Class names of the detections.
        files: What objects are looked for in; only the simulator's have its size of a pixel.
        pixel_m: Height and width of a pixel where the scene tells; else the config must.

    Raises:
        ConfigError: Nothing tells the size of a pixel, or the windows do not fit it.
    """
    assert config.model.cfar is not None
    pixel_m = pixel_m or _pixel_m(config, files)
    cfar = Cfar(config.model.cfar, Radiometry.from_config(config.radiometry), pixel_m, classes)
    windows = windows_px(cfar.config, pixel_m)
    logger.info(
        "CFAR: %s clutter, rate %g, pixels of %g x %g m, guard %d x %d px, background %d x %d px,"
        " objects of %g to %g m are %r",
        cfar.config.distribution.name,
        cfar.config.pfa,
        *pixel_m,
        *windows.guard,
        *windows.background,
        cfar.config.min_size_m,
        cfar.config.max_size_m,
        cfar.class_name,
    )
    return cfar


def detect_part(config: Config, part: Dataset) -> dict[int, Detections]:
    """Return image id -> detections, best first, at most ``evaluation.max_detections`` each.

    Raises:
        ConfigError: Nothing tells the size of a pixel, or the windows do not fit it.
        DatasetError: An image cannot be read or does not fit the radiometry.
    """
    cfar = make_cfar(
        config, part.classes, (Path(each["file_name"]) for each in part.samples), pixel_m=None
    )

    def detect(sample: Sample) -> Detections:
        found = _detect(cfar, Path(sample["file_name"])).above(config.evaluation.min_score)
        return found.select(np.arange(len(found))[: config.evaluation.max_detections])

    found: dict[int, Detections] = {}
    # Threads, since NumPy and OpenCV let go of the interpreter where the time is spent.
    with (
        progress_bar(f"cfar {part.name}", unit="image") as show,
        ThreadPoolExecutor(usable_cores()) as pool,
    ):
        for sample, each in zip(part.samples, pool.map(detect, part.samples), strict=True):
            found[sample["image_id"]] = each
            show(len(found), len(part.samples))
    return found


def _detect(cfar: Cfar, path: Path) -> Detections:
    pixels, valid = read_pixels(path, nodata=cfar.radiometry.nodata)
    try:
        return cfar.find(pixels, valid)
    except DatasetError as error:
        msg = f"{path}: {error}"
        raise DatasetError(msg) from error


def _pixel_m(config: Config, files: Iterable[Path]) -> tuple[float, float]:
    assert config.model.cfar is not None
    pixel_m, simulator = config.model.cfar.pixel_m, config.usecase.simulator
    if pixel_m is None and simulator is not None:
        made = Path(simulator.folder).resolve()
        if all(file.resolve().is_relative_to(made) for file in files):
            pixel_m = simulator.pixel_m
    if pixel_m is None:
        msg = (
            "model.cfar.pixel_m must be set, in metres: the images do not tell how large their"
            " pixels are, and a CFAR's windows are in metres"
        )
        raise ConfigError(msg)
    return pixel_m, pixel_m

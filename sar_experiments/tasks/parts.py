"""The data of a task: simulated where wanted, read, checked, freed of what would spoil a run."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from sar_experiments import run_folder
from sar_experiments.config import processes
from sar_experiments.cores import usable_cores
from sar_experiments.data import check_table
from sar_experiments.data import parts as data_parts
from sar_experiments.data.checks import (
    CheckSettings,
    Report,
    check_datasets,
    without_bad_samples,
)
from sar_experiments.data.loader import default_workers
from sar_experiments.data.radiometry import Radiometry
from sar_experiments.errors import DatasetError
from sar_experiments.tasks.progress import progress_bar

if TYPE_CHECKING:
    from pathlib import Path

    from sar_experiments.config import Config
    from sar_experiments.data.annotations import Dataset

logger = logging.getLogger(__name__)

CHECK_TABLE = "check.txt"
"""The data check for people, as the console of task=check shows it."""
CHECK_CACHE = "check.sqlite"
"""Beside the run folders, so that the runs of a sweep decode the data once."""


def load_parts(config: Config, folder: Path) -> dict[str, Dataset]:
    """Read the use case's parts, after simulating them where that is wanted."""
    if config.usecase.simulator is not None:
        logger.info("simulated data of usecase=%s: %s", config.usecase.name, simulate(config))
    parts = data_parts.read_parts(config.usecase, folder=folder)
    for part in parts.values():
        logger.info("%s", data_parts.describe(part))
    return parts


def usable_parts(config: Config, parts: dict[str, Dataset], folder: Path) -> dict[str, Dataset]:
    """Return the parts without samples that would spoil a run.

    Raises:
        DatasetError: There are such samples, and nobody allowed to leave them out.
    """
    report = checked(config, parts, folder)
    warnings = [each for each in report.findings if each.severity == "warning"]
    if warnings:
        told = check_table.summary(warnings)
        logger.warning("data check, warnings: %s; see %s", told, folder / run_folder.CHECK)
    if not report.errors:
        return parts
    if not config.usecase.ignore_bad_samples:
        shown = "; ".join(finding.sentence for finding in report.errors[:3])
        msg = (
            f"the data has {len(report.errors)} errors: {shown}. task=check shows all;"
            " usecase.ignore_bad_samples=true leaves such samples out"
        )
        raise DatasetError(msg)
    usable = {}
    for name, part in parts.items():
        usable[name], counts = without_bad_samples(part, report)
        if counts:
            logger.warning("%s: left out %s", name, counts)
    return usable


def checked(config: Config, parts: dict[str, Dataset], folder: Path) -> Report:
    """Check the parts and write check.json."""
    settings = CheckSettings(
        radiometry=Radiometry.from_config(config.radiometry),
        anchor_sizes=config.model.anchor_sizes,
        anchor_ratios=config.model.anchor_ratios,
        min_size_px=config.augment.min_size_test,
        max_size_px=config.augment.max_size_test,
        workers=usable_cores(),
        cache=run_folder.cache_folder() / CHECK_CACHE,
    )
    start = time.monotonic()
    with progress_bar("check", unit="image") as show:
        report = check_datasets(parts, settings, progress=show)
    images = sum(part.images for part in report.parts.values())
    logger.info("data check: %s images in %.1f s", f"{images:,}", time.monotonic() - start)
    run_folder.write_json(folder / run_folder.CHECK, report.as_json())
    run_folder.write_atomically(folder / CHECK_TABLE, report.as_table())
    return report


def simulate(config: Config) -> Path:
    """Make the simulator's dataset, with a progress bar, and return its folder."""
    assert config.usecase.simulator is not None
    with progress_bar("simulate", unit="image") as show:
        return data_parts.simulate(config.usecase.simulator, show)


def workers(config: Config) -> int:
    """Return the number of loader processes of this process."""
    wanted = config.hardware.num_workers
    return default_workers(runs_at_once=processes(config)) if wanted is None else wanted

"""task=check: look the data over before spending GPU hours."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sar_experiments import run_folder
from sar_experiments.data import check_table
from sar_experiments.data.check_figures import write_figures
from sar_experiments.exit_codes import DONE, USER_MISTAKE
from sar_experiments.tasks.parts import checked, load_parts
from sar_experiments.tasks.statistics import measured_overrides

if TYPE_CHECKING:
    from pathlib import Path

    from sar_experiments.config import Config
    from sar_experiments.tasks.interruption import Interruption

logger = logging.getLogger(__name__)


def run(config: Config, folder: Path, _interruption: Interruption) -> int:
    """Show the table, write JSON and figures; errors in the data give exit code 2."""
    report = checked(config, load_parts(config, folder), folder)
    logger.info("%s\n", report.as_table())
    if report.parts["train"].mean:
        logger.info("measured: %s", measured_overrides(folder))
    figure = write_figures(report, folder)
    logger.info("all of it: %s; figures: %s", folder / run_folder.CHECK, figure)
    if report.errors:
        why = f"the data has errors: {check_table.summary(report.errors)}"
        run_folder.update_result(folder, status="failed", why=why, cause="user")
        return USER_MISTAKE
    run_folder.update_result(folder, status="completed")
    return DONE

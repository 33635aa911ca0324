"""task=simulate: only make the simulator's dataset."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sar_experiments import run_folder
from sar_experiments.exit_codes import DONE
from sar_experiments.tasks.parts import simulate

if TYPE_CHECKING:
    from pathlib import Path

    from sar_experiments.config import Config
    from sar_experiments.tasks.interruption import Interruption

logger = logging.getLogger(__name__)


def run(config: Config, folder: Path, _interruption: Interruption) -> int:
    """Make the dataset and say where it lies."""
    logger.info("simulated data: %s", simulate(config))
    run_folder.update_result(folder, status="completed")
    return DONE

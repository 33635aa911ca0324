"""task=browse: a contact sheet of training samples, plain and augmented, with their boxes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sar_experiments import run_folder
from sar_experiments.data import parts as data_parts
from sar_experiments.data.browse import contact_sheet
from sar_experiments.exit_codes import DONE
from sar_experiments.tasks.measuring import sar_mapper
from sar_experiments.tasks.parts import load_parts, usable_parts

if TYPE_CHECKING:
    from pathlib import Path

    from sar_experiments.config import Config
    from sar_experiments.tasks.interruption import Interruption

logger = logging.getLogger(__name__)


def run(config: Config, folder: Path, _interruption: Interruption) -> int:
    """Write contact_sheet.png."""
    train = usable_parts(config, load_parts(config, folder), folder)["train"]
    train = data_parts.to_learn_from(train, config.usecase)
    mapper = sar_mapper(config, training_set=train)
    path = folder / "contact_sheet.png"
    contact_sheet(train.samples, mapper, train.classes, path, seed=config.seed)
    logger.info("contact sheet: %s", path)
    run_folder.update_result(folder, status="completed")
    return DONE

"""task=report: finished runs compared on one page, from the files that they left."""

from __future__ import annotations

import logging
import shlex
from typing import TYPE_CHECKING

from sar_experiments import run_folder
from sar_experiments.exit_codes import DONE
from sar_experiments.report.comparison import sentences
from sar_experiments.report.page import as_page
from sar_experiments.report.runner import report
from sar_experiments.report.tables import DOOR, as_csv, as_json
from sar_experiments.tasks.progress import progress_bar

if TYPE_CHECKING:
    from pathlib import Path

    from sar_experiments.config import Config
    from sar_experiments.tasks.interruption import Interruption

logger = logging.getLogger(__name__)

PAGE, JSON, CSV = "report.html", "report.json", "report.csv"


def run(config: Config, folder: Path, _interruption: Interruption) -> int:
    """Write report.html, report.json and report.csv."""
    with progress_bar("report", unit="run") as show:
        found = report(config, show)
    result = run_folder.read_result(folder)
    overrides = shlex.join(result.overrides) if result is not None else ""
    sources = [config.source] if isinstance(config.source, str) else config.source
    title = f"Report on {', '.join(sources)}"
    made = f"{run_folder.now()}, by {DOOR} {overrides}"
    run_folder.write_json(folder / JSON, as_json(found))
    run_folder.write_atomically(folder / CSV, as_csv(found))
    run_folder.write_atomically(folder / PAGE, as_page(found, title=title, made=made))
    logger.info(
        "runs: %d compared, %d not", len(found.found.measured),
        len(found.found.others) + len(found.found.unread),
    )  # fmt: skip
    for section in found.sections:
        for sentence in sentences(section, metric=found.metric, part=found.part):
            logger.info("%s%s", f"data {section.name}: " if section.name else "", sentence)
        for note in section.notes:
            logger.warning("%s", note)
    logger.info("report: %s", folder / PAGE)
    run_folder.update_result(folder, status="completed")
    return DONE

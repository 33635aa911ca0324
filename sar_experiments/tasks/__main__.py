"""The fresh process of a run: ``python -m sar_experiments.tasks RUN_FOLDER``.

Reads the run's config.yaml, runs its task, records in result.json how it ended.
"""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path

from sar_experiments import run_folder, supervisor
from sar_experiments.config import Config, read_config
from sar_experiments.errors import DivergedError, SarError
from sar_experiments.exit_codes import FAILED, INTERRUPTED, USER_MISTAKE
from sar_experiments.tasks.interruption import Interruption

logger = logging.getLogger("sar_experiments.tasks")  # not __main__, as this module is called
tracebacks = logging.getLogger("sar_experiments.traceback")


def main() -> None:
    """Run the task of a run folder; the exit code is the contract's."""
    folder = Path(sys.argv[1])
    interruption = Interruption()
    interruption.install()
    config = read_config(folder / run_folder.CONFIG)
    supervisor.die_with_parent(config.hardware.grace_s)
    log_to(folder)
    sys.exit(run(config, folder, interruption))


def run(config: Config, folder: Path, interruption: Interruption) -> int:
    """Run one task, record in result.json how it ended, and return the exit code."""
    try:
        return _run(config, folder, interruption)
    except SarError as error:
        return _failed(folder, str(error), cause="user", code=USER_MISTAKE)
    except DivergedError as error:
        details = {"step": error.step, "losses": error.losses, "files": error.files}
        run_folder.update_result(folder, status="diverged", why=str(error), details=details)
        logger.error("diverged: %s", error)  # noqa: TRY400 - the sentence says it all
        return FAILED
    except KeyboardInterrupt:
        why = "interrupted; run again to go on"
        run_folder.update_result(folder, status="interrupted", why=why)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - outermost: whatever it is, it is recorded
        tracebacks.exception("the task failed")
        if type(error).__name__ == "OutOfMemoryError":  # PyTorch's, which may not be imported
            why = f"out of GPU memory: {error}. Try a smaller solver.ims_per_batch"
            return _failed(folder, why, cause="oom", code=FAILED)
        why = f"{type(error).__name__}: {error} (traceback in {folder / run_folder.TRAIN_LOG})"
        return _failed(folder, why, cause="exception", code=FAILED)


def log_to(folder: Path) -> None:
    """Send decisions to the console and everything to train.log."""
    log = logging.FileHandler(folder / run_folder.TRAIN_LOG, encoding="utf-8")
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[log], force=True)
    logging.captureWarnings(True)
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(logging.Formatter("%(message)s"))
    console.addFilter(lambda record: record.name != tracebacks.name)
    logging.getLogger("sar_experiments").addHandler(console)


def _run(config: Config, folder: Path, interruption: Interruption) -> int:
    device = importlib.import_module("sar_experiments.tasks.device")
    device.load_libraries()
    device.prepare_device(config)
    task = importlib.import_module(f"sar_experiments.tasks.{config.task.name}")
    return int(task.run(config, folder, interruption))


def _failed(folder: Path, why: str, *, cause: str, code: int) -> int:
    logger.error("%s", why)
    run_folder.update_result(folder, status="failed", why=why, cause=cause)
    return code


if __name__ == "__main__":
    main()

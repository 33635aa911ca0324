"""The fresh process of a run: ``python -m sar_experiments.tasks RUN_FOLDER``.

Reads the run's config.yaml, runs its task, records in result.json how it ended.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tqdm import tqdm

from sar_experiments import run_folder, supervisor
from sar_experiments.config import Config, Runtime, measures_scenes, processes, read_config
from sar_experiments.errors import ConfigError
from sar_experiments.tasks.ending import Ending, attempt, record, tracebacks
from sar_experiments.tasks.interruption import Interruption

if TYPE_CHECKING:
    from types import ModuleType


def main() -> None:
    """Run the task of a run folder; the exit code is the contract's."""
    folder = Path(sys.argv[1])
    interruption = Interruption()
    interruption.install()
    config = read_config(folder / run_folder.CONFIG)
    supervisor.die_with_parent(config.hardware.grace_s)
    log_to(folder)
    sys.exit(record(folder, attempt(lambda: run(config, folder, interruption))))


def run(config: Config, folder: Path, interruption: Interruption) -> Ending:
    """Run the task, in this process or in one for each GPU."""
    if config.task.module is not None:  # a user's own; it loads what it needs
        return Ending(int(_users_task(config.task.module).run(config, folder, interruption)))
    if _needs_torch(config):
        importlib.import_module("sar_experiments.tasks.device").load_libraries()
    count = processes(config)
    if count == 1:
        return Ending(run_task(config, folder, interruption))
    launching = importlib.import_module("sar_experiments.tasks.launching")
    ending: Ending = launching.launch_ranks(folder, count, interruption)
    return ending


def run_task(config: Config, folder: Path, interruption: Interruption) -> int:
    """Run the task in this process and return its exit code."""
    if _needs_torch(config):
        importlib.import_module("sar_experiments.tasks.device").prepare_device(config)
    name = "scene_evaluation" if measures_scenes(config) else config.task.name
    task = importlib.import_module(f"sar_experiments.tasks.{name}")
    return int(task.run(config, folder, interruption))


def _needs_torch(config: Config) -> bool:
    """Tell whether PyTorch is used: loading it costs seconds and 600 MB."""
    on_scenes = config.task.name in ("predict", "serve") or measures_scenes(config)
    is_classic = config.model.cfar is not None and on_scenes
    reads_files = config.task.name == "report"
    return config.runtime is Runtime.torch and not is_classic and not reads_files


def log_to(folder: Path, rank: int = 0) -> None:
    """Send decisions to the console and everything to train.log.

    In a sweep the console is train.log itself, and gets no line of its own.

    Args:
        folder: Run folder.
        rank: Those above 0 would repeat what the first one says: their warnings alone are kept.
    """
    log = logging.FileHandler(folder / run_folder.TRAIN_LOG, encoding="utf-8")
    who = f"[process {rank}] " if rank else ""
    log.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {who}%(name)s: %(message)s"))
    level = logging.WARNING if rank else logging.INFO
    logging.basicConfig(level=level, handlers=[log], force=True)
    logging.captureWarnings(True)
    if rank or _is_console(folder / run_folder.TRAIN_LOG):
        return
    console = BesideBars(sys.stdout)
    console.setFormatter(logging.Formatter("%(message)s"))
    console.addFilter(lambda record: record.name != tracebacks.name)
    logging.getLogger("sar_experiments").addHandler(console)


def _is_console(file: Path) -> bool:
    """Tell whether standard output goes to a file."""
    try:
        return os.path.samestat(os.fstat(sys.stdout.fileno()), file.stat())
    except (OSError, AttributeError):  # no file of the system, or closed
        return False


class BesideBars(logging.StreamHandler[TextIO]):
    """Writes lines on a terminal that shows progress bars: they make room, and come back."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line or table."""
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def _users_task(name: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        msg = f"task.module={name} cannot be imported: {error}"
        raise ConfigError(msg) from error
    if not callable(getattr(module, "run", None)):
        msg = f"task.module={name} ({module.__file__}) has no function run"
        raise ConfigError(msg)
    return module


if __name__ == "__main__":
    main()

"""The stand-in task: a job's life without its work, in a few milliseconds and no PyTorch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from sar_experiments import run_folder
from sar_experiments.errors import DivergedError

if TYPE_CHECKING:
    from pathlib import Path

    from sar_experiments.config import Config
    from sar_experiments.tasks.interruption import Interruption

SPANS = "spans.jsonl"
"""In the run folder: one line per process, with its GPUs and the seconds it was there."""


class OutOfMemoryError(RuntimeError):
    """Called like PyTorch's."""


def run(config: Config, folder: Path, interruption: Interruption) -> int:
    """Sleep, then end as told."""
    options = config.task.options
    began_s = time.time()
    interruption.can_wait = True
    sys.stdout.write(f"standing in with {config.solver.accumulate_steps} parts\n")
    helper = subprocess.Popen(["sleep", "600"])  # as a loader process would be
    (folder / "helper.pid").write_text(f"{helper.pid}\n")
    seconds = float(os.environ.get("SAR_STANDIN_SECONDS", options["seconds"]))
    while time.time() < began_s + seconds:
        if interruption.requested and options["ending"] != "deaf":
            (folder / "saved").touch()
            raise KeyboardInterrupt
        time.sleep(0.02)
    span = {
        "began": began_s,
        "ended": time.time(),
        "gpus": os.environ["CUDA_VISIBLE_DEVICES"],
        "cores": os.environ.get("SAR_CORES"),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }
    with (folder / SPANS).open("a") as file:
        file.write(json.dumps(span) + "\n")
    _end(options["ending"], fits=options["fits"] <= config.solver.accumulate_steps)
    reached = options["AP50"]
    metrics = {"AP50": 100 * config.solver.base_lr if reached is None else float(reached)}
    run_folder.update_result(folder, status="completed", metrics=metrics)
    return 0


def _end(ending: str, *, fits: bool) -> None:
    if ending == "raise":
        raise ValueError("told to raise")
    if ending == "exit":
        os._exit(3)
    if ending == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if ending == "diverge":
        raise DivergedError("told to diverge", step=1, losses={}, files=[])
    if ending == "oom" and not fits:
        raise OutOfMemoryError("told to run out of memory")

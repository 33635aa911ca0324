"""What a look at many runs costs the monitor: the first one, a later one, and drawing it.

    python benchmarks/monitor.py --runs 1000

The runs are made up: nine in ten have ended, one in ten goes on and writes between two looks.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import socket
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from sar_experiments import monitor, run_folder
from sar_experiments.run_state import RunReader

LINES = 750  # 15 000 steps, one line in 20
CONFIG = "x: y\n" * 400 + "d2:\n  SOLVER:\n    MAX_ITER: 15000\n"


def make_run(folder: Path, number: int, lines: str) -> None:
    """Write the files of one run."""
    running = number % 10 == 0
    run_folder.write_result(
        folder,
        run_folder.Result(
            status="running" if running else "completed", task="train",
            metrics={"AP50": 0.5}, host=socket.gethostname(), pid=os.getpid(),
            pid_start=run_folder.process_start(os.getpid()), started=run_folder.now(),
            overrides=["usecase=ships", f"seed={number}"],
        ),
    )  # fmt: skip
    (folder / run_folder.CONFIG).write_text(CONFIG)
    (folder / run_folder.METRICS).write_text(lines)


def main() -> None:
    """Make the runs, look twice, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    count = parser.parse_args().runs
    filler = {f"loss_{k}": 0.123456789 for k in range(15)}
    lines = "".join(
        json.dumps({"iteration": k * 20 + 19, "total_loss": 1.0, "time": 0.3, **filler}) + "\n"
        for k in range(LINES)
    )
    with tempfile.TemporaryDirectory(prefix="sar-bench-") as name:
        root = Path(name)
        for number in range(count):
            make_run(root / f"sweep_{number // 100}" / f"{number}_ships", number, lines)
        reader = RunReader(root, metric="AP50", stalled_s=900)
        times = []
        for _ in range(4):
            began_s = time.process_time()
            runs = reader.read()
            read_s = time.process_time()
            page = monitor.page(runs, root, "AP50", 50)
            Console(file=io.StringIO(), width=150, height=50).print(page)
            times.append((read_s - began_s, time.process_time() - read_s))
            for run in runs[: count // 10]:
                with (run.folder / run_folder.METRICS).open("a") as file:
                    file.write(lines.splitlines(keepends=True)[-1])
    (first, _), *later = times
    sys.stdout.write(
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f},"
        f" Python {platform.python_version()}: {len(runs)} runs, seconds of one core:"
        f" first look {first:.2f}, later ones {min(each for each, _ in later):.2f},"
        f" drawing {min(each for _, each in later):.2f}\n"
    )


if __name__ == "__main__":
    main()

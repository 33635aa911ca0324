"""How long sweeps of uneven jobs take on made-up GPUs, against the ideal and against Hydra alone.

    make bench-sweep                        # about ten minutes, nearly all of it asleep
    python benchmarks/sweep.py --queued 200

The jobs sleep, but go through the real door: Hydra, joblib, leases, supervisor, a process each.
The ideal is the longest-processing-time schedule of the bare seconds.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).resolve().parent
LENGTHS_S = (60, 52, 45, 40, 36, 33, 30, 28, 25, 22, 20, 16)
GPUS = 4
DOOR = ("-m", "sar_experiments", "--multirun", "task=standin", "hardware.device=cuda")


def list_schedule(lengths: list[float], gpus: int) -> float:
    """Return the makespan when each job goes to the GPU that is free first."""
    free = [0.0] * gpus
    for length in lengths:
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def ours(folder: Path, *overrides: str) -> tuple[float, list[dict[str, float]]]:
    """Run a sweep through the door; return its seconds and the jobs' spans."""
    environment = {
        "SAR_CONF_PATH": str(HERE / "standin"),
        "PYTHONPATH": os.pathsep.join([str(HERE / "standin"), os.environ.get("PYTHONPATH", "")]),
        "SAR_GPUS": ",".join(f"gpu{k}" for k in range(GPUS)),
        "SAR_GPU_LOCK_DIR": str(folder / "locks"),
    }
    command = [sys.executable, *DOOR, *overrides, f"output={folder / 'sweep'}"]
    return timed(command, folder, environment)


def plain(folder: Path, *overrides: str) -> tuple[float, list[dict[str, float]]]:
    """Run the same sleeps in a Hydra app without supervisor."""
    command = [sys.executable, str(HERE / "plain_app.py"), "--multirun", *overrides]
    return timed([*command, f"hydra.sweep.dir={folder / 'sweep'}"], folder, {})


def timed(
    command: list[str], folder: Path, environment: dict[str, str]
) -> tuple[float, list[dict[str, float]]]:
    """Run a command; return its seconds, and its jobs' spans in seconds from its start."""
    folder.mkdir(parents=True, exist_ok=True)
    began_s = time.time()
    with (folder / "log").open("w") as log:
        subprocess.run(
            command,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            check=True,
            cwd=folder,
        )
    seconds = time.time() - began_s
    spans = []
    for path in (folder / "sweep").glob("*/spans.jsonl"):
        span = json.loads(path.read_text().splitlines()[-1])
        spans.append({**span, "began": span["began"] - began_s, "ended": span["ended"] - began_s})
    return seconds, sorted(spans, key=lambda span: span["began"])


def gaps(spans: list[dict[str, float]]) -> list[float]:
    """Return the seconds between two jobs of the same GPU, or of the same worker."""
    found = []
    for gpu in {span["gpus"] for span in spans}:
        own = [span for span in spans if span["gpus"] == gpu]
        found += [later["began"] - earlier["ended"] for earlier, later in pairwise(own)]
    return found


def row(name: str, spans: list[dict[str, float]], seconds: float, ideal_s: float) -> str:
    """Return a row of the table."""
    makespan_s = max(s["ended"] for s in spans) - spans[0]["began"]
    between = gaps(spans)
    gap = f"{statistics.median(between):.1f}" if between else "-"
    return (
        f"| {name} | {makespan_s:.1f} | {makespan_s / ideal_s:.3f} | {spans[0]['began']:.1f} |"
        f" {gap} | {seconds:.1f} |"
    )


def one_process_s(folder: Path) -> float:
    """Return the seconds of one stand-in process that sleeps no time, its supervisor left out."""
    (run,) = (path.parent for path in (folder / "sweep").glob("*/config.yaml"))
    began_s = time.time()
    environment = {**os.environ, "PYTHONPATH": str(HERE / "standin"), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "sar_experiments.tasks", str(run)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.time() - began_s


def makespans(folder: Path, scale: float) -> None:
    """Print the table of makespans."""
    lengths = [length * scale for length in LENGTHS_S]
    said = ",".join(f"{length:g}" for length in lengths)
    ideal_s = list_schedule(sorted(lengths, reverse=True), GPUS)
    say(
        f"{len(lengths)} jobs of {min(lengths):g} to {max(lengths):g} s, longest first,"
        f" {GPUS} made-up GPUs;"
    )
    say(
        f"longest-processing-time schedule {ideal_s:.1f} s,"
        f" sum / {GPUS} {sum(lengths) / GPUS:.1f} s\n"
    )
    say("| | makespan s | / ideal | first job after s | between two jobs s | command s |")
    say("| --- | --: | --: | --: | --: | --: |")
    seconds, spans = ours(folder / "ours", f"task.options.seconds={said}")
    say(row("this project: fresh process, leased GPU", spans, seconds, ideal_s))
    joblib = ("hydra/launcher=joblib", f"hydra.launcher.n_jobs={GPUS}")
    seconds, spans = plain(folder / "joblib", f"seconds={said}", *joblib)
    say(row("Hydra's joblib launcher, in the worker", spans, seconds, ideal_s))
    seconds, spans = plain(folder / "basic", f"seconds={said}")
    say(row("Hydra's basic launcher, one after the other", spans, seconds, ideal_s))
    ours(folder / "one", "task.options.seconds=0")
    say(f"\nStart-up of one stand-in process: {one_process_s(folder / 'one'):.1f} s")


def queued(folder: Path, count: int) -> None:
    """Print what many jobs without work cost."""
    overrides = (f"seed=range({count})", "task.options.seconds=0")
    seconds, spans = ours(folder / "queued", *overrides)
    again_s, _ = ours(folder / "queued", *overrides)
    say(
        f"\n{count} jobs of 0 s on {GPUS} made-up GPUs:"
        f" the first begins after {spans[0]['began']:.1f} s,"
        f" all are done after {seconds:.1f} s ({seconds / count:.2f} s per job);"
        f" the same command again, nothing to do: {again_s:.1f} s"
    )


def say(line: str) -> None:
    """Write a line now."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the jobs' seconds")
    parser.add_argument("--queued", type=int, default=0, help="measure so many empty jobs instead")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    names = ("hydra-core", "hydra-joblib-launcher", "joblib")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    say(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, load {load:.1f} at the start, "
        f"Python {platform.python_version()}, {versions}\n")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="sar-bench-") as folder:
        if arguments.queued:
            queued(Path(folder), arguments.queued)
        else:
            makespans(Path(folder), arguments.scale)


if __name__ == "__main__":
    main()

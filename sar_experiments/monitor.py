"""FRONT DOOR watch(): a live table of runs; reads files only."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sar_experiments.run_state import DEAD, STALLED, RunReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sar_experiments.run_state import RunState

STYLES = {
    "running": "green", "completed": "cyan", "pruned": "dim", "interrupted": "yellow",
    "failed": "red", "diverged": "red", STALLED: "bold yellow", DEAD: "bold red",
}  # fmt: skip
HEADER = ("run", "state", "step", "left", "loss", "metric", "GPU", "load", "what")
RIGHT = frozenset({"step", "left", "loss", "metric", "load"})
FRAME_LINES = 6  # of the terminal's height: title, header, rules, count


def watch(root: Path, *, metric: str, stalled_s: float, refresh_s: float, once: bool) -> None:
    """Show the runs below a folder until Ctrl-C; once, as plain text, where nobody watches.

    Args:
        root: Folder of runs and of sweeps.
        metric: Name of the metric to show.
        stalled_s: Seconds without a word after which a run is marked.
        refresh_s: Seconds between two looks.
        once: Write one table without colours, all runs, and return.
    """
    reader = RunReader(root, metric=metric, stalled_s=stalled_s)
    if once or not sys.stdout.isatty():
        sys.stdout.write(plain(reader.read(), root, metric) + "\n")
        return
    console = Console()
    try:
        with Live(console=console, auto_refresh=False, screen=True) as live:
            while True:
                live.update(page(reader.read(), root, metric, console.height), refresh=True)
                time.sleep(refresh_s)
    except KeyboardInterrupt:
        return


def plain(runs: Sequence[RunState], root: Path, metric: str) -> str:
    """Return the table as text, one line per run, columns apart by two spaces."""
    loads = gpu_loads()
    shared = shared_overrides(runs)
    rows = [header(metric), *(cells(run, root, loads, shared) for run in runs)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(HEADER))]
    lines = [
        "  ".join(
            cell.rjust(width) if name in RIGHT else cell.ljust(width)
            for cell, width, name in zip(row, widths, HEADER, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, counted(runs, root)])


def shared_overrides(runs: Sequence[RunState]) -> dict[Path, set[str]]:
    """Return sweep folder -> the overrides that all its runs have."""
    shared: dict[Path, set[str]] = {}
    for run in runs:
        own = set(run.overrides)
        shared[run.folder.parent] = shared.get(run.folder.parent, own) & own
    return shared


def cells(
    run: RunState, root: Path, loads: Mapping[str, str], shared: Mapping[Path, set[str]]
) -> tuple[str, ...]:
    """Return what the columns of HEADER show of a run; the last: what it changed, why it ended."""
    step = "" if run.step is None else str(run.step)
    if run.step is not None and run.max_iter is not None:
        step = f"{run.step}/{run.max_iter}"
    name = str(run.folder.relative_to(root)) if run.folder != root else root.name
    why = run.why.split("\n")[0]
    if run.state in (STALLED, DEAD):
        why = f"nothing written for {duration(run.silent_s)}"
    common = shared.get(run.folder.parent, set())
    changes = " ".join(each for each in run.overrides if each not in common)
    return (
        name,
        run.state,
        step,
        "" if run.left_s is None or run.state == DEAD else duration(run.left_s),
        "" if run.loss is None else f"{run.loss:.3f}",
        "" if run.metric is None else f"{run.metric:.4f}",
        "+".join(short(gpu) for gpu in run.gpus) or "CPU",
        "+".join(filter(None, (loads.get(gpu, "") for gpu in run.gpus)))
        if run.state in ("running", STALLED)
        else "",
        "; ".join(filter(None, (changes, why[:120]))),
    )


def counted(runs: Sequence[RunState], root: Path) -> str:
    """Return how many runs are in which state."""
    counts = Counter(run.state for run in runs)
    said = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    noun = "run" if len(runs) == 1 else "runs"
    return f"{len(runs)} {noun} below {root}{': ' if said else ''}{said}"


def duration(seconds: float) -> str:
    """Return a duration as 4:05:06, 5:06 or 6 s."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{whole:02}"
    return f"{minutes}:{whole:02}" if minutes else f"{whole} s"


def short(gpu: str) -> str:
    """Return the beginning of a GPU's UUID, enough to tell it from others."""
    return gpu.removeprefix("GPU-")[:8]


def gpu_loads() -> dict[str, str]:
    """Return GPU UUID -> load and memory, as nvidia-smi tells; empty without it."""
    query = "--query-gpu=uuid,utilization.gpu,memory.used,memory.total"
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = (line.split(", ") for line in done.stdout.splitlines() if line.count(", ") == 3)  # noqa: PLR2004
    return {uuid: _load(load, used, total) for uuid, load, used, total in rows}


def _load(percent: str, used_mib: str, total_mib: str) -> str:
    """Return load and memory of one GPU; MIG devices do not tell."""
    if not (percent.isdigit() and used_mib.isdigit() and total_mib.isdigit()):
        return ""
    return f"{percent}% {int(used_mib) / 1024:.0f}/{int(total_mib) / 1024:.0f} GB"


def header(metric: str) -> tuple[str, ...]:
    """Return the header with the metric's own name."""
    return tuple(metric if name == "metric" else name for name in HEADER)


def page(runs: Sequence[RunState], root: Path, metric: str, height: int) -> Group:
    """Return as many runs as the terminal has lines, and how many there are."""
    table = Table(expand=True, title=f"{root}, {time.strftime('%H:%M:%S')}, Ctrl-C leaves")
    for name, shown in zip(HEADER, header(metric), strict=True):
        table.add_column(
            shown, justify="right" if name in RIGHT else "left",
            no_wrap=True, overflow="ellipsis", ratio=1 if name == "what" else None,
        )  # fmt: skip
    loads, shared = gpu_loads(), shared_overrides(runs)
    room = max(1, height - FRAME_LINES)
    for run in runs[:room]:
        style = STYLES.get(run.state, "")
        table.add_row(
            *(
                Text(each, style=style if k == 1 else "")
                for k, each in enumerate(cells(run, root, loads, shared))
            )
        )
    more = f"; {len(runs) - room} more not shown" if len(runs) > room else ""
    return Group(table, Text(counted(runs, root) + more))

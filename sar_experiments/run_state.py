"""What the files of a run tell while it goes on: state, step, loss, metric, time left.

Only files are read, and of metrics.jsonl only the end. What did not change since the last look is
not read again; a run that has ended is not looked at beyond its result.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sar_experiments import run_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

TAIL_BYTES = 64 * 1024
MAX_DEPTH = 6
FRESH_S = 20.0
"""A run whose process is not seen, but which wrote this recently, runs in another container."""

STALLED, DEAD = "stalled", "dead"
GOES_ON = ("running", STALLED)
WAITING_TASKS = ("serve",)
"""They write only when somebody asks them."""


@dataclass(frozen=True)
class RunState:
    """One run, as its files tell.

    Attributes:
        folder: Run folder.
        state: One of run_folder.STATUSES, or STALLED (a process, but nothing written for long) or
            DEAD (no process, and no word of its end).
        task: What it does.
        why: One sentence where it did not complete.
        step: Steps done; None before the first line of metrics.jsonl.
        max_iter: Steps in all; None where config.yaml does not tell.
        left_s: Estimated seconds of training left; None without a step or after its end.
        loss: Last total loss.
        metric: Last validation metric while it runs, the run's own afterwards.
        gpus: Leased GPUs.
        overrides: What the command line changed.
        seconds: Since the start, or in all.
        silent_s: Seconds since it wrote anything.
    """

    folder: Path
    state: str
    task: str = ""
    why: str = ""
    step: int | None = None
    max_iter: int | None = None
    left_s: float | None = None
    loss: float | None = None
    metric: float | None = None
    gpus: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    seconds: float = 0.0
    silent_s: float = 0.0


@dataclass(frozen=True)
class _Seen:
    """What was read of one run; kept while the files stay as they are."""

    stamp: tuple[int, int]
    result: run_folder.Result | None
    max_iter: int | None
    tail_stamp: tuple[int, int] = (0, 0)
    tail: RunState | None = None


class RunReader:
    """Reads the runs below a folder, again and again."""

    def __init__(self, root: Path, *, metric: str, stalled_s: float) -> None:
        """Read nothing yet.

        Args:
            root: Folder of runs and of folders of runs.
            metric: Name of the metric to read.
            stalled_s: Seconds without a word after which a run counts as stalled.
        """
        self._root = root
        self._metric = metric
        self._stalled_s = stalled_s
        self._seen: dict[Path, _Seen] = {}

    def read(self) -> list[RunState]:
        """Return all runs: those that go on first, then the latest ones."""
        folders = list(run_folders(self._root))
        there = set(folders)
        self._seen = {path: seen for path, seen in self._seen.items() if path in there}
        found = [state for path in folders if (state := self._state(path)) is not None]
        return sorted(found, key=lambda run: (run.state not in GOES_ON, run.silent_s))

    def _state(self, folder: Path) -> RunState | None:
        stamp = _stamp(folder / run_folder.RESULT)
        seen = self._seen.get(folder)
        if seen is None or seen.stamp != stamp:
            result = run_folder.read_result(folder)
            max_iter = _max_iter(folder) if result is not None else None
            seen = self._seen[folder] = _Seen(stamp, result, max_iter)
        if seen.result is None:  # foreign or half-written
            return None
        now_s = time.time()
        result = seen.result
        if result.status != "running":
            metric = result.metrics.get(self._metric)
            silent_s = now_s - stamp[0] / 1e9
            return replace(
                self._with_tail(folder, seen, RunState(folder, result.status)),
                task=result.task, why=result.why, seconds=result.seconds, left_s=None,
                gpus=tuple(result.gpus), overrides=tuple(result.overrides), silent_s=silent_s,
                metric=metric if isinstance(metric, int | float) else None,
            )  # fmt: skip
        return self._running(folder, seen, result, now_s)

    def _running(
        self, folder: Path, seen: _Seen, result: run_folder.Result, now_s: float
    ) -> RunState:
        names = (
            run_folder.RESULT, run_folder.METRICS, run_folder.TRAIN_LOG, run_folder.TILE_LOG,
        )  # fmt: skip
        last_s = max(_stamp(folder / name)[0] for name in names) / 1e9
        silent_s = max(0.0, now_s - last_s)
        state = self._with_tail(folder, seen, RunState(folder, "running", max_iter=seen.max_iter))
        return replace(
            state,
            state=self._liveliness(result, silent_s),
            task=result.task,
            gpus=tuple(result.gpus),
            overrides=tuple(result.overrides),
            seconds=max(0.0, now_s - _started_s(result)),
            silent_s=silent_s,
        )

    def _liveliness(self, result: run_folder.Result, silent_s: float) -> str:
        is_elsewhere = result.host != socket.gethostname()
        if not is_elsewhere and silent_s > FRESH_S and not run_folder.is_alive(result):
            return DEAD
        is_stalled = silent_s > self._stalled_s and result.task not in WAITING_TASKS
        return STALLED if is_stalled else "running"

    def _with_tail(self, folder: Path, seen: _Seen, state: RunState) -> RunState:
        """Add what the end of metrics.jsonl tells."""
        path = folder / run_folder.METRICS
        stamp = _stamp(path)
        if seen.tail is None or seen.tail_stamp != stamp:
            tail = read_tail(path, self._metric, replace(state, max_iter=seen.max_iter))
            if tail.metric is None and seen.tail is not None:
                tail = replace(tail, metric=seen.tail.metric)
            seen = self._seen[folder] = replace(seen, tail_stamp=stamp, tail=tail)
        assert seen.tail is not None
        return replace(seen.tail, state=state.state)


def run_folders(root: Path, depth: int = 0) -> Iterator[Path]:
    """Yield the run folders below a folder, and the folder itself if it is one."""
    if (root / run_folder.RESULT).is_file():
        yield root
        return
    if depth > MAX_DEPTH:
        return
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        folders = [e.path for e in entries if not e.name.startswith(".") and e.is_dir()]
        for path in sorted(folders):
            yield from run_folders(Path(path), depth + 1)


def read_tail(path: Path, metric: str, state: RunState) -> RunState:
    """Return the state with what the last lines of metrics.jsonl say; broken lines say nothing."""
    lines = _last_lines(path)
    values = {**_latest(lines, f"val/{metric}"), **_latest(lines, "total_loss")}
    if "iteration" not in values:
        return state
    step = int(values["iteration"]) + 1
    left_s = None
    if state.max_iter is not None and "time" in values:
        left_s = max(0, state.max_iter - step) * float(values["time"])
    return replace(
        state,
        step=step,
        loss=values.get("total_loss"),
        metric=values.get(f"val/{metric}", state.metric),
        left_s=left_s,
    )


def _last_lines(path: Path) -> list[bytes]:
    """Return the lines of the end of a file, latest first; the first one of a cut may be broken."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            return file.read().splitlines()[::-1]
    except OSError:
        return []


def _latest(lines: list[bytes], key: str) -> dict[str, float]:
    """Return the numbers of the latest whole line that has a key; only such lines are parsed."""
    wanted = f'"{key}"'.encode()
    for line in lines:
        if wanted not in line:
            continue
        with contextlib.suppress(ValueError):
            content = json.loads(line)
            if isinstance(content, dict) and key in content:
                return {k: v for k, v in content.items() if isinstance(v, int | float)}
    return {}


def _max_iter(folder: Path) -> int | None:
    """Find Detectron2's number of steps in config.yaml, without parsing the whole of it."""
    try:
        text = (folder / run_folder.CONFIG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"^\s+MAX_ITER: (\d+)$", text, re.MULTILINE)
    return int(match[1]) if match else None


def _started_s(result: run_folder.Result) -> float:
    try:
        return run_folder.parse_time(result.started)
    except ValueError:
        return time.time()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)
    return stat.st_mtime_ns, stat.st_size

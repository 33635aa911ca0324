"""When a run of a sweep is not worth its GPU hours: the median rule, from the other runs' files.

A run is given up when its best metric so far lies below the median of the best that the other
runs of its sweep had reached by the same step (the rule of Google Vizier, Golovin et al. 2017).
Runs are processes of their own, perhaps on other hosts; what they share is the sweep's folder.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from sar_experiments import run_folder


@dataclass(frozen=True)
class Pruning:
    """The rule for one run.

    Attributes:
        folder: The run's folder; the others lie beside it.
        metric: What is compared; larger is better.
        min_runs: Others that must have come as far.
        min_step: Steps that every run gets.
    """

    folder: Path
    metric: str
    min_runs: int
    min_step: int

    def reason(self, step: int, best: float) -> str:
        """Return why to give up after a step with the best metric so far; empty to go on."""
        if step < self.min_step:
            return ""
        reached = [
            value
            for path in self.folder.parent.glob(f"*/{run_folder.METRICS}")
            if path.parent.name != self.folder.name
            and (value := best_until(path, self.metric, step)) is not None
        ]
        if len(reached) < self.min_runs or best >= (median := statistics.median(reached)):
            return ""
        return (
            f"pruned after step {step}: best {self.metric} {best:.4f} is below {median:.4f}, the"
            f" median of {len(reached)} other runs by that step"
        )


def best_until(path: Path, metric: str, step: int) -> float | None:
    """Return the best metric of a run in its first steps; None if it has not come so far.

    Args:
        path: metrics.jsonl, perhaps being written.
        metric: Its name.
        step: Steps done.
    """
    key = f"val/{metric}"
    best, last_step = None, 0
    with contextlib.suppress(OSError):
        for line in path.read_bytes().splitlines():
            if key.encode() not in line:
                continue
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                content = json.loads(line)
                done, value = int(content["iteration"]) + 1, float(content[key])
                last_step = max(last_step, done)
                if done <= step and (best is None or value > best):
                    best = value
    return best if last_step >= step else None

"""When a run of a sweep is not worth its GPU hours: the median rule, from the other runs' files.

A run is given up when its best metric so far lies below the median of the best that the other
runs of its sweep had reached by the same step (the rule of Google Vizier, Golovin et al. 2017).
Runs are processes of their own, perhaps on other hosts; what they share is the sweep's folder.
Runs of other data in it, where a sweep varies the use case, are no measure of each other.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sar_experiments import run_folder

_HYDRA = ".hydra/hydra.yaml"


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
            and _learns_from(path.parent) == _learns_from(self.folder)
            and (value := best_until(path, self.metric, step)) is not None
        ]
        if len(reached) < self.min_runs or best >= (median := statistics.median(reached)):
            return ""
        return (
            f"pruned after step {step}: best {self.metric} {best:.4f} is below {median:.4f}, the"
            f" median of {len(reached)} other runs by that step"
        )


def is_of_sweep(folder: Path) -> bool:
    """Tell whether a run was started by a sweep, from what Hydra wrote into its folder."""
    return bool(_values(folder / _HYDRA, "hydra.mode") == ["MULTIRUN"])


@cache  # another config would be another run, and have another folder
def _learns_from(folder: Path) -> list[object]:
    """Return the name and the paths of a run's data; all None where its config is unreadable."""
    parts = [
        f"usecase.{part}.{key}" for part in ("train", "val") for key in ("images", "annotations")
    ]
    return _values(folder / run_folder.CONFIG, "usecase.name", *parts)


def _values(path: Path, *keys: str) -> list[object]:
    """Return values of a YAML file; None for what is not there."""
    try:
        content = OmegaConf.load(path)
        assert isinstance(content, DictConfig)
        return [OmegaConf.select(content, key) for key in keys]
    except (OSError, YAMLError, OmegaConfBaseException, AssertionError):
        return [None] * len(keys)


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

"""Which runs a report is about, and what their files say of each."""

from __future__ import annotations

import contextlib
import glob
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sar_experiments import run_folder
from sar_experiments.config import HASH_EXCLUDES
from sar_experiments.errors import ConfigError
from sar_experiments.run_state import RunReader, run_folders
from sar_experiments.standings import finite
from sar_experiments.summary import SEED, Row, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sar_experiments.run_folder import Result

MEASURING_TASKS = ("train", "evaluate")
_NO_SETTING = (SEED, "task", "output", "resume", "force", *HASH_EXCLUDES)
"""Overrides, whole groups included, that do not tell one setting from another."""
_LABEL = 90  # letters of a label
_SAME = 1e-4  # a GPU and a CPU may differ by as much
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where libyaml is there


@dataclass(frozen=True, eq=False)
class Run:
    """One run, as its files tell.

    Attributes:
        folder: Run folder.
        name: Unique among the runs of a report, as short as that allows.
        result: Its result.json.
        state: Its status, or ``stalled`` or ``dead`` where it says running.
        config: Plain values of config.yaml; empty where that cannot be read.
        changes: Key -> value of the overrides that not all runs share, but for the seed and what
            changes no result.
        setting: What runs share that differ in the seed alone.
    """

    folder: Path
    name: str
    result: Result
    state: str
    config: Mapping[str, Any]
    changes: Mapping[str, str]
    setting: str

    @property
    def seed(self) -> int | None:
        """Return the seed; None where config.yaml does not tell."""
        seed = self.config.get(SEED)
        return seed if isinstance(seed, int) else None

    @property
    def model(self) -> str:
        """Return the name of the model, empty where config.yaml does not tell."""
        model = self.config.get("model")
        return str(model.get("name", "")) if isinstance(model, dict) else ""

    @property
    def is_cfar(self) -> bool:
        """Tell whether it is the classic detector."""
        model = self.config.get("model")
        return isinstance(model, dict) and model.get("cfar") is not None

    @property
    def names_classes(self) -> bool:
        """Whether its detector names classes."""
        return self.result.names_classes and not self.is_cfar  # older versions do not record it

    def repeated(self, trained: Mapping[Path, Run]) -> Run | None:
        """Return the run whose checkpoint it evaluates, with the same result; None for no such.

        Args:
            trained: Resolved folder -> training.
        """
        weights = self.config.get("weights")
        if self.result.task != "evaluate" or not isinstance(weights, str):
            return None
        path = Path(weights).resolve()
        other = trained.get(path) or trained.get(path.parent)
        if other is None:
            return None
        mine, others = self.result.metrics, other.result.metrics
        is_same = all(_is_close(mine.get(name), others.get(name)) for name in ("AP", "AP50"))
        return other if is_same else None

    @property
    def label(self) -> str:
        """Return what it changed, for people; its model, or name, where that is nothing."""
        told = " ".join(f"{key}={value}" for key, value in self.changes.items())
        short = f"{told[:_LABEL]} …" if len(told) > _LABEL else told
        return short or self.model or self.name


@dataclass(frozen=True)
class Found:
    """What a source holds.

    Attributes:
        measured: Runs with numbers to compare.
        others: Runs that failed, diverged, were given up or go on, with their reason.
        unread: Folders whose result.json cannot be read.
        left_out: Task -> number of runs that measure nothing, such as predictions.
    """

    measured: tuple[Run, ...]
    others: tuple[Run, ...]
    unread: tuple[Path, ...]
    left_out: Mapping[str, int]


def find_runs(source: str | Sequence[str], *, metric: str, stalled_s: float) -> Found:
    """Read the runs that a source means.

    Args:
        source: A run folder, a folder of runs or of sweeps, a pattern, or several of them.
        metric: Name of the metric that the order follows.
        stalled_s: Seconds without a word after which a run that says running is stalled.

    Raises:
        ConfigError: There is no run that trains or evaluates.
    """
    folders = _folders([source] if isinstance(source, str) else source)
    results = {folder: _result(folder) for folder in folders}
    unread = tuple(folder for folder, result in results.items() if result is None)
    known = {folder: result for folder, result in results.items() if result is not None}
    measuring = {f: r for f, r in known.items() if r.task in MEASURING_TASKS or metric in r.metrics}
    # Scenes have a truth of their own, not that of the use case.
    wanted = {folder: r for folder, r in measuring.items() if "scenes" not in r.metrics}
    left_out: dict[str, int] = {}
    for result in (known[folder] for folder in known.keys() - wanted.keys()):
        left_out[result.task] = left_out.get(result.task, 0) + 1
    if not wanted and not unread:
        told = ", ".join(f"{count} of task={task}" for task, count in left_out.items())
        msg = (
            f"source={source} holds no run that trains or evaluates (found: {told or 'no run'});"
            " accepted are a run folder, a folder of runs such as a sweep, a pattern, or a list"
        )
        raise ConfigError(msg)
    runs = _read(wanted, metric=metric, stalled_s=stalled_s)
    measured = tuple(run for run in runs if run.state == "completed")
    others = tuple(run for run in runs if run.state != "completed")
    return Found(measured, others, unread, dict(sorted(left_out.items())))


def _result(folder: Path) -> Result | None:
    with contextlib.suppress(OSError):  # another user's, perhaps
        return run_folder.read_result(folder)
    return None


def _folders(sources: Iterable[str]) -> list[Path]:
    """Return the run folders, each once, in the order of the sources.

    Raises:
        ConfigError: A source is not there.
    """
    found: dict[Path, Path] = {}
    for source in sources:
        roots = [source]
        if glob.has_magic(source) and not Path(source).exists():
            roots = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - absolute patterns
        if not roots or not all(Path(root).exists() for root in roots):
            msg = f"source={source}: nothing is there"
            raise ConfigError(msg)
        for root in map(Path, roots):
            start = root if root.is_dir() else root.parent  # a file of a run means the run
            for folder in run_folders(start):
                found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _read(results: Mapping[Path, Result], *, metric: str, stalled_s: float) -> list[Run]:
    names = _names(list(results))
    rows = rows_of({names[folder]: result for folder, result in results.items()})

    def order(row: Row) -> tuple[bool, float]:
        value = finite(row.result.metrics.get(metric))
        return value is None, -(value or 0.0)

    folders = {name: folder for folder, name in names.items()}
    runs = []
    for row in sorted(rows, key=order):
        folder, result = folders[row.job], row.result
        config = read_config_plainly(folder)
        changes = _of_setting(row.changes)
        state = result.status
        if state == "running":
            seen = RunReader(folder, metric=metric, stalled_s=stalled_s).read()
            state = seen[0].state if seen else state
        setting = _setting(_as_asked(config, folder, result), result)
        runs.append(Run(folder, row.job, result, state, config, changes, setting))
    return runs


def _is_close(one: float | None, other: float | None) -> bool:
    return one == other if one is None or other is None else abs(one - other) < _SAME


def told_apart(runs: Sequence[Run]) -> list[Run]:
    """Return runs on the same data with the changes that tell those of a kind apart.

    Trainings, evaluations and CFARs are kinds: they have other keys on their command lines.
    """
    changes: dict[str, dict[str, str]] = {}
    for kind in {(run.is_cfar, run.result.task) for run in runs}:
        results = {r.name: r.result for r in runs if (r.is_cfar, r.result.task) == kind}
        changes |= {row.job: _of_setting(row.changes) for row in rows_of(results)}
    return [replace(run, changes=changes[run.name]) for run in runs]


def _of_setting(changes: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in changes.items() if k.split(".")[0] not in _NO_SETTING}


def read_config_plainly(folder: Path) -> Mapping[str, Any]:
    """Return config.yaml as plain values, without the schema: a thousand take seconds."""
    return _read_yaml(folder / run_folder.CONFIG)


def _read_yaml(path: Path) -> Mapping[str, Any]:
    with contextlib.suppress(OSError, yaml.YAMLError, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=_LOADER)  # both are safe loaders
        if isinstance(content, dict):
            return content
    return {}


def trained_config(run: Run) -> Mapping[str, Any]:
    """Return the config that a run's network was trained with, empty where nothing tells.

    An evaluation's own config names the data that it measures; the run folder of its weights tells
    what they learnt from.
    """
    if run.result.task == "train":
        return run.config
    weights = run.config.get("weights")
    if not isinstance(weights, str):
        return {}
    return read_config_plainly(Path(weights)) or read_config_plainly(Path(weights).parent)


def _as_asked(config: Mapping[str, Any], folder: Path, result: Result) -> Mapping[str, Any]:
    """Undo what retries for want of memory changed: such a run is still a seed of its setting."""
    solver = config.get("solver")
    if result.accumulate_steps is None or not isinstance(solver, dict):
        return config
    asked = _read_yaml(folder / ".hydra" / run_folder.CONFIG)
    steps = (asked.get("solver") or {}).get("accumulate_steps", solver.get("accumulate_steps"))
    return {**config, "solver": {**solver, "accumulate_steps": steps}}


def _setting(config: Mapping[str, Any], result: Result) -> str:
    if config:
        return run_folder.config_hash(config, exclude=(*HASH_EXCLUDES, SEED))
    kept = [
        each
        for each in result.overrides
        if each.lstrip("+~").split("=")[0].split(".")[0] not in _NO_SETTING
    ]
    return " ".join(sorted(kept)) or "unknown"


def _names(folders: Sequence[Path]) -> dict[Path, str]:
    """Return folder -> its path below what all of them share."""
    absolute = [folder.absolute() for folder in folders]
    if len(absolute) == 1:
        return {folders[0]: absolute[0].name}
    shared = Path(os.path.commonpath(absolute)) if absolute else Path()
    return {
        folder: str(path.relative_to(shared))
        for folder, path in zip(folders, absolute, strict=True)
    }

"""Resuming a run: its own config with what the command changes, and the command that does it."""

from __future__ import annotations

import copy
import logging
import os
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sar_experiments import run_folder
from sar_experiments.config import (
    Config,
    Schedule,
    from_plain,
    hash_excludes,
    read_config,
    to_plain,
)
from sar_experiments.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sar_experiments.run_folder import Result

logger = logging.getLogger(__name__)

FREE_GROUPS = ("hardware", "sweep")
"""Groups of the configuration that never change what a run learns."""

_FLAGS = ("true", "false", "yes", "no", "on", "off", "1", "0", "null")

FREE_KEYS = (
    "solver.log_period", "solver.checkpoint_period", "solver.eval_period", "solver.patience",
    "solver.max_loss", "evaluation.pictures", "evaluation.batch_size", "evaluation.loss_images",
)  # fmt: skip
"""Keys that a resumed training may change: the weights at each step stay the same."""


# --- The command line ----------------------------------------------------------------------------


def with_run_folder(arguments: list[str], groups: Sequence[str]) -> list[str]:
    """Turn ``resume=RUN`` into ``output=RUN`` and keep the run's record of how it was composed.

    Args:
        arguments: Of the command line.
        groups: Names of the config groups.

    Raises:
        ConfigError: ``resume`` names no run, or ``output`` another place, or a folder of runs.
    """
    is_sweep = bool({"-m", "--multirun"} & set(arguments))
    resumed, output = _value_of("resume", arguments), _value_of("output", arguments)
    if resumed is not None and resumed.lower() in _FLAGS:
        resumed = None
    if resumed is not None:
        _check_resumed(resumed, output, is_sweep=is_sweep)
        arguments = [each for each in arguments if not each.startswith(("resume=", "output="))]
        arguments.append(f"output={quoted(resumed)}")
        output = resumed
    if output is None or is_sweep:
        return arguments
    folder = Path(output)
    result = run_folder.read_result(folder)
    if result is None:
        runs = _runs_below(folder)
        if runs and uses_own_config(arguments, groups):
            msg = (
                f"output={output} is a folder of runs, not a run. A sweep is resumed by its own"
                f" command, with --multirun and output={output}; one of its runs by"
                f" output={folder / runs[0]}"
            )
            raise ConfigError(msg)
    elif result.task == "train" and (folder / run_folder.LAST_CHECKPOINT).is_file():
        # .hydra/ says how the run was composed; a resume, or a refused one, does not change that.
        return [*arguments, "hydra.output_subdir=null"]
    return arguments


def uses_own_config(arguments: Sequence[str], groups: Sequence[str]) -> bool:
    """Return whether a command leaves the choice of data, model and task to the run it resumes."""
    chosen = [
        each.lstrip("+~").partition("=")[0].partition("@")[0]
        for each in arguments
        if "=" in each or each.startswith("~")
    ]
    deletes = any(each.startswith("~") for each in arguments)
    return not deletes and not any(
        (key in groups or "/" in key) and key not in FREE_GROUPS for key in chosen
    )


def command_words() -> list[str]:
    """Return how this program was called, without its arguments."""
    words = sys.orig_argv
    for index in range(len(words) - 1):
        if words[index] == "-m" and words[index + 1] == "sar_experiments":
            return words[: index + 2]
    scripts = [word for word in words if Path(word).name.replace("-", "_") == "sar_experiments"]
    return scripts[:1] or [words[0], "-m", "sar_experiments"]


def _value_of(key: str, arguments: Sequence[str]) -> str | None:
    found = [each for each in arguments if each.startswith(f"{key}=")]
    if not found:
        return None
    try:
        value = OverridesParser.create().parse_override(found[-1]).value()
    except HydraException:  # Hydra will say so itself
        return None
    return None if value is None else str(value)


def _check_resumed(resumed: str, output: str | None, *, is_sweep: bool) -> None:
    folder = Path(resumed)
    if output is not None and Path(output).resolve() != folder.resolve():
        msg = (
            f"resume={resumed} continues in that folder, but output={output} names another; leave"
            " output= out, or start a new run from its weights:"
            f" output={output} model.weights={folder / run_folder.MODEL_BEST}"
        )
        raise ConfigError(msg)
    runs = _runs_below(folder)
    if is_sweep and not runs:
        msg = f"resume={resumed} is no folder of a sweep: it holds no runs"
        raise ConfigError(msg)
    if is_sweep or run_folder.read_result(folder) is not None:
        return
    if runs:
        msg = (
            f"resume={resumed} is a sweep, not a run. A sweep is resumed by its own command with"
            f" output={resumed}; one of its runs by resume={folder / runs[0]}"
        )
    else:
        msg = f"resume={resumed} is no run folder: it holds no readable {run_folder.RESULT}"
    raise ConfigError(msg)


def _runs_below(folder: Path) -> list[str]:
    return sorted(found.parent.name for found in folder.glob(f"*/{run_folder.RESULT}"))


# --- The config ----------------------------------------------------------------------------------


def with_own_config(
    composed: DictConfig, folder: Path, overrides: Sequence[str], groups: Sequence[str]
) -> DictConfig:
    """Return the config of the run in the folder, changed by what the command says.

    A command that chooses data, model or task is composed like any other and compared later.

    Raises:
        ConfigError: The run's config.yaml does not fit the schema.
    """
    written = folder / run_folder.CONFIG
    result = run_folder.read_result(folder)
    has_run = result is not None and written.is_file()
    if not has_run or not uses_own_config(overrides, groups):
        return composed
    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    own = read_config(written, defaults=from_plain(plain, origin="the composed config"))
    merged: DictConfig = OmegaConf.structured(own)
    _restore_references(merged, composed)
    for override in overrides:
        key = override.lstrip("+").partition("=")[0]
        if not key.startswith("hydra."):
            OmegaConf.update(merged, key, OmegaConf.select(composed, key), force_add=True)
    merged.output = composed.output
    merged.resume = composed.resume
    return merged


def _restore_references(merged: DictConfig, composed: DictConfig) -> None:
    """Let keys that repeat another, such as those of Detectron2, follow it again when it changes.

    config.yaml holds values. A key is a reference again where that gives the value that it has;
    where a user had set it by hand, it keeps what it was set to.
    """
    raw: Any = OmegaConf.to_container(composed, resolve=False)
    for key, text in _leaves(raw):
        if not isinstance(text, str) or "${" not in text:
            continue
        before = OmegaConf.select(merged, key, default=_ABSENT)
        if before is _ABSENT:
            continue
        OmegaConf.update(merged, key, text)
        try:
            follows = OmegaConf.select(merged, key) == before
        except OmegaConfBaseException:
            follows = False
        if not follows:
            OmegaConf.update(merged, key, before)


def differing_keys(config: Config, folder: Path, earlier: Result, told: str) -> list[str]:
    """Return what the run in the folder did otherwise than is asked now, one sentence per key.

    Args:
        config: What is asked now.
        folder: Of the run.
        earlier: Its result.
        told: Hash of ``config``; where it is the run's, the file need not be read.
    """
    if earlier.config_hash == told:
        return []
    own = read_own(folder, config)
    if own is None:
        return [f"{folder / run_folder.CONFIG} cannot be read, and the configs are not the same"]
    if earlier.task == config.task.name == "train":
        if _hash_with(config, own) == earlier.config_hash:
            return []
        config = _with_free_keys(config, own)
        if earlier.accumulate_steps is not None:  # chosen by a retry, not by the user
            parts = own.solver.accumulate_steps
            config = replace(config, solver=replace(config.solver, accumulate_steps=parts))
    excluded = hash_excludes(config)
    now, before = dict(_leaves(to_plain(config))), dict(_leaves(to_plain(own)))
    keys = [key for key in {**before, **now} if not _is_below(key, excluded)]
    different = [
        key
        for key in keys
        if before.get(key, _ABSENT) != now.get(key, _ABSENT)
        and not (key.startswith("radiometry.") and now.get(key) is None)  # measured by the run
    ]
    causes = [key for key in different if not key.startswith("d2.")]  # d2 repeats ours
    return [
        f"{key}: {_shown(before, key)} in the run, {_shown(now, key)} now"
        for key in causes or different
    ]


def _hash_with(config: Config, own: Config) -> str:
    """Return the hash of the config with the values of the run where a resume may change them."""
    same = _with_free_keys(config, own)
    return run_folder.config_hash(to_plain(same), exclude=hash_excludes(same))


def read_own(folder: Path, defaults: Config) -> Config | None:
    """Return the config of a run, keys that an older version did not have filled in, or None."""
    try:
        return read_config(folder / run_folder.CONFIG, defaults=defaults)
    except ConfigError:
        return None


def say_extension(config: Config, folder: Path) -> bool:
    """Return whether a training is asked for more steps than when it last ran; say what follows."""
    own = read_own(folder, config)
    if own is None or config.solver.max_iter <= own.solver.max_iter:
        return False
    before, now = own.solver.max_iter, config.solver.max_iter
    logger.info("%s is extended from %d to %d steps", folder, before, now)
    if config.solver.schedule is Schedule.cosine:
        logger.warning(
            "solver.schedule=cosine: the learning rate rises on resuming, to what a cosine over %d"
            " steps has there; the run will not equal one of %d steps from the start",
            now, now,
        )  # fmt: skip
    return True


def _with_free_keys(config: Config, own: Config) -> Config:
    """Return the config with the run's values of all that a resume may change."""
    same = copy.deepcopy(config)
    keys = list(FREE_KEYS)
    asked, had = config.solver, own.solver
    if asked.max_iter >= had.max_iter:
        keys.append("solver.max_iter")
        if _before(asked.steps, had.max_iter) == _before(had.steps, had.max_iter):
            keys.append("solver.steps")
    for key in keys:
        group, name = key.split(".")
        setattr(getattr(same, group), name, getattr(getattr(own, group), name))
        detectron2 = name.upper()
        mine, its = same.d2.get("SOLVER", {}), own.d2.get("SOLVER", {})
        if detectron2 in mine and detectron2 in its:
            mine[detectron2] = its[detectron2]
    return same


def _before(steps: Sequence[int], end: int) -> list[int]:
    return [each for each in steps if each < end]


_ABSENT = object()


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _is_below(key: str, parents: Sequence[str]) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def _shown(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "absent"
    value = values[key]
    return "null" if value is None else str(value).lower() if value in (True, False) else str(value)


# --- The command that resumes --------------------------------------------------------------------


def how_to_resume(folder: Path, result: Result, words: Sequence[str]) -> str:
    """Return where an interrupted run continues, and the command for it, ready to be pasted.

    Args:
        folder: Of the run.
        result: How it ended.
        words: How the program was called, without arguments.
    """
    command = shlex.join([*words, f"output={quoted(str(folder.resolve()))}"])
    where = f"{_resume_point(folder)} " if result.task == "train" else ""
    return f"{where}To continue:\n\n    {_in_this_folder(command)}\n"


def how_to_resume_sweep(folder: Path, typed: Sequence[str], words: Sequence[str]) -> str:
    """Return the command that finishes an interrupted sweep; see how_to_resume."""
    kept = [each for each in typed if not each.startswith(("output=", "resume="))]
    command = shlex.join([*words, *kept, f"output={quoted(str(folder.resolve()))}"])
    return f"To continue with what is missing:\n\n    {_in_this_folder(command)}\n"


def quoted(value: str) -> str:
    """Return a value as Hydra's grammar takes it, in quotes where it must be."""
    if re.fullmatch(r"[A-Za-z0-9_/.\-+:@%]+", value):
        return value
    inner = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return f"'{inner}'"


def _in_this_folder(command: str) -> str:
    return f"cd {shlex.quote(os.getcwd())} && {command}"  # noqa: PTH109 - as the shell has it


def _resume_point(folder: Path) -> str:
    try:
        name = (folder / run_folder.LAST_CHECKPOINT).read_text(encoding="utf-8").strip()
    except OSError:
        return "No checkpoint was written yet: training will start from the beginning."
    if name == run_folder.MODEL_FINAL:
        return "Training has ended; what is missing is the evaluation of the best checkpoint."
    step = int(re.sub(r"\D", "", name) or 0)
    return f"Training will continue after step {step}, where the last checkpoint was written."

"""The door: compose with Hydra, make it typed, check it, hand it to one fresh process.

Imports nothing heavier than Hydra, so that ``--help``, ``--cfg job`` and every refused mistake
take less than a second.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException, HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sar_experiments import gpus, resolvers, run_folder, summary, supervisor
from sar_experiments.config import (
    CPU_TASKS,
    Config,
    Device,
    from_plain,
    hash_excludes,
    processes,
    to_plain,
    to_yaml,
)
from sar_experiments.config_checks import check_config
from sar_experiments.config_paths import check_paths, with_absolute_paths
from sar_experiments.errors import ConfigError, HardwareError, SarError
from sar_experiments.exit_codes import FAILED, INTERRUPTED, USER_MISTAKE
from sar_experiments.messages import explain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hydra.core.config_search_path import ConfigSearchPath

logger = logging.getLogger(__name__)

_OPEN_GROUPS = r"d2|augment\.transforms|augment\.policies"

_KEY_IN_NULL = (
    "an override sets a key inside one that is null; --cfg job shows which (usecase.simulator, for"
    " instance, is set for usecase=demo alone)"
)


class JobFailed(CompactHydraException):
    """One run of a sweep failed; a plain message, since it is pickled back to the parent."""


class UserFolders(SearchPathPlugin):
    """Let the folders of SAR_CONF_PATH hold users' own YAML files."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append them; a file of ours wins over one of the same name there."""
        for folder in filter(None, os.environ.get("SAR_CONF_PATH", "").split(os.pathsep)):
            search_path.append("SAR_CONF_PATH", f"file://{Path(folder).absolute()}")


def main() -> None:
    """Run the command line; the process ends with the exit code of the contract."""
    if Path(sys.argv[0]).name == "__main__.py":
        sys.argv[0] = "sar_experiments"  # what usage messages show for python -m
    sys.argv[1:] = options_first([with_open_key(each) for each in sys.argv[1:]])
    # Our file has the name of the plugin's own; that its schema is laid under ours is welcome.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/ray' is validated against")
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand errors to us instead of printing them
    # docker stop, kill and scancel send SIGTERM; joblib ends its workers on KeyboardInterrupt.
    # A cluster that is about to take the machine away sends SIGUSR1 or SIGUSR2.
    for number in supervisor.STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        _hydra_main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if show_traceback:
            raise
        sys.exit(_report(error))


def _report(error: Exception) -> int:
    """Write what went wrong as one paragraph and return the exit code."""
    code = USER_MISTAKE
    if isinstance(error, JobFailed):
        sentence, code = str(error), FAILED
    elif isinstance(error, SarError | HydraException | OmegaConfBaseException):
        sentence = explain(error)
    elif isinstance(error, OSError):  # the run folder, which Hydra makes
        where = error.filename or "the run folder"
        sentence = f"{where} cannot be written: {error.strerror}; output=DIR goes elsewhere"
        code = FAILED if error.errno == errno.ENOSPC else USER_MISTAKE
    elif "Unexpected type for root" in str(error):  # OmegaConf's assertion
        sentence = _KEY_IN_NULL
    else:
        sentence = f"{type(error).__name__}: {error} (HYDRA_FULL_ERROR=1 shows where)"
        code = FAILED
    sys.stderr.write(f"sar_experiments: {sentence}\n")
    return code


def run(composed: DictConfig) -> float | None:
    """Run one job in a fresh process and return what a sweeper maximises.

    Raises:
        SarError: A mistake found before the process started.
        JobFailed: In a sweep; a single run ends this process with its exit code instead.
    """
    hydra_config = HydraConfig.get()
    is_sweep = hydra_config.mode == RunMode.MULTIRUN
    _log_to_console(f"[job {hydra_config.job.num}] " if is_sweep else "")
    folder = Path(hydra_config.runtime.output_dir)
    try:
        return _run(folder, typed(composed), is_sweep=is_sweep)
    except (SarError, OmegaConfBaseException) as error:
        _remove_if_unused(folder)
        if is_sweep:
            raise
        # Ended here, since Hydra would print its overrides around the sentence.
        sys.exit(_report(error))


def _run(folder: Path, config: Config, *, is_sweep: bool) -> float | None:
    result = _finished(folder, config) or _supervise(folder, config)
    code = supervisor.exit_code(result)
    metric = result.metrics.get(config.evaluation.metric)
    if is_sweep:  # a single run's own console has said it
        number = "" if metric is None else f", {config.evaluation.metric} {metric:.4f}"
        why = f", {result.why}" if code else ""
        logger.info("%s after %.0f s%s%s", result.status, result.seconds, number, why)
        board = summary.write_summary(folder.parent, metric=config.evaluation.metric)
        logger.info("leaderboard of %s\n%s", folder.parent, board)
    if code and is_sweep:
        msg = f"{folder}: {result.status}, {result.why}"
        raise JobFailed(msg)
    if code:
        sys.exit(code)
    return metric


def typed(composed: DictConfig) -> Config:
    """Turn what Hydra composed into a checked Config.

    Hydra's ``+key=value`` opens any node, so the schema is laid over once more.

    Raises:
        ConfigError: A key is unknown, missing or out of range.
        HardwareError: There is no GPU where one was asked for.
    """
    composed = composed.copy()
    if composed.hardware.device is Device.auto:
        on_gpu = composed.task.name not in CPU_TASKS and bool(gpus.visible_gpus())
        composed.hardware.device = Device.cuda if on_gpu else Device.cpu
    missing = sorted(missing_keys(OmegaConf.to_container(composed, resolve=False)))
    if missing:
        msg = f"{', '.join(missing)} must be set: no file and no override gives a value (???)"
        raise ConfigError(msg)
    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    config = from_plain(plain, origin="the composed config")
    check_config(config)
    check_paths(config)
    return with_absolute_paths(config)


def missing_keys(tree: object, prefix: str = "") -> Iterator[str]:
    """Yield the keys that are left open (???); OmegaConf's own fails where a key refers to one."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from missing_keys(value, f"{prefix}.{name}" if prefix else str(name))
    elif tree == "???":
        yield prefix


def options_first(arguments: list[str]) -> list[str]:
    """Put overrides behind options, which argparse refuses between two overrides."""

    def is_override(argument: str) -> bool:
        return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))

    return sorted(arguments, key=is_override)  # stable: the order of each kind stays


def with_open_key(argument: str) -> str:
    """Let ``KEY=value`` and ``+KEY=value`` both set a key of a group that is open to new ones.

    Hydra refuses the first for a key that no file names and the second for one that a file does;
    which keys of Detectron2 and which transforms our files name is nothing to know by heart.
    """
    match = re.fullmatch(rf"\+{{0,2}}((?:{_OPEN_GROUPS})(?:\.\w+)*=.*)", argument, re.DOTALL)
    return f"++{match[1]}" if match else argument


def conf_dir() -> str:
    """Return the folder of our YAML files: in the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return str(folder)
    msg = f"conf/config.yaml is neither in {package} nor beside it: the installation is broken"
    raise ConfigError(msg)


# --- One run -----------------------------------------------------------------------------------


def _finished(folder: Path, config: Config) -> run_folder.Result | None:
    """Return the result of a run that need not be repeated; refuse a folder of another run."""
    earlier = run_folder.read_result(folder)
    if earlier is None:
        return None
    if run_folder.is_alive(earlier):
        msg = f"{folder} holds a run that is still going on (process {earlier.pid})"
        raise ConfigError(msg)
    if not config.resume:
        msg = f"{folder} holds a run already and resume=false; choose another output or remove it"
        raise ConfigError(msg)
    if earlier.config_hash != _hash(config):
        msg = (
            f"{folder} holds a run of another config (compare its config.yaml); choose another"
            " output or remove the folder"
        )
        raise ConfigError(msg)
    if earlier.status == "completed":
        logger.info("%s is completed already; nothing to do", folder)
        return earlier
    logger.info("going on with %s (%s)", folder, earlier.status)
    return None


def _remove_if_unused(folder: Path) -> None:
    """Remove a folder that Hydra made for a run that never started."""
    if folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {".hydra"}:
        shutil.rmtree(folder)


def _supervise(folder: Path, config: Config) -> run_folder.Result:
    on_cuda = config.hardware.device is Device.cuda
    if on_cuda and config.hardware.num_gpus < 1:
        raise HardwareError("hardware.device=cuda needs hardware.num_gpus=1 or more, got 0")
    num_gpus = processes(config) if on_cuda else 0
    with gpus.lease(
        num_gpus,
        jobs_per_gpu=config.hardware.jobs_per_gpu,
        on_wait=lambda: logger.info("waiting for a free GPU"),
    ) as lease:
        run_folder.write_atomically(folder / run_folder.CONFIG, to_yaml(config))
        where = f"GPU {', '.join(lease.gpus)}" if lease.gpus else "the CPU"
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            changed = " ".join(HydraConfig.get().overrides.task)
            logger.info("start on %s: %s -> %s", where, changed, folder)
        return supervisor.supervise(
            folder,
            command=[sys.executable, "-m", "sar_experiments.tasks", str(folder)],
            gpus=lease.gpus,
            grace_s=config.hardware.grace_s,
            console="inherit" if HydraConfig.get().mode == RunMode.RUN else "log",
            start=run_folder.new_result(
                task=config.task.name,
                config_hash=_hash(config),
                overrides=list(HydraConfig.get().overrides.task),
            ),
        )


def _hash(config: Config) -> str:
    return run_folder.config_hash(to_plain(config), exclude=hash_excludes(config.task.name))


def _log_to_console(prefix: str) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    house = logging.getLogger("sar_experiments")
    house.handlers[:] = [handler]
    house.setLevel(logging.INFO)
    house.propagate = False


# At import: workers of a sweep import this module to find ``run``.
resolvers.register()
ConfigStore.instance().store(name="schema", node=Config)
Plugins.instance().register(UserFolders)

_hydra_main = hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")(run)

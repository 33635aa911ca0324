"""The door: compose with Hydra, make it typed, check it, hand it to one fresh process.

Imports nothing heavier than Hydra, so that ``--help``, ``--cfg job`` and every refused mistake
take less than a second.
"""

from __future__ import annotations

import errno
import importlib
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
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from sar_experiments import (
    gpus,
    job,
    resolvers,
    resuming,
    run_folder,
    supervisor,
    sweep_report,
    sweeping,
)
from sar_experiments.config import Config, Device, computes_on_cpu, from_plain
from sar_experiments.config_checks import check_config
from sar_experiments.config_paths import check_paths, with_absolute_paths
from sar_experiments.errors import ConfigError, SarError
from sar_experiments.exit_codes import FAILED, INTERRUPTED, USER_MISTAKE
from sar_experiments.messages import cluster_mistake, explain
from sar_experiments.standings import shared_metric
from sar_experiments.sweep_report import JobFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hydra.core.config_search_path import ConfigSearchPath

logger = logging.getLogger(__name__)

_OPEN_GROUPS = r"d2|augment\.transforms|augment\.policies"

_KEY_IN_NULL = (
    "an override sets a key inside one that is null; --cfg job shows which (usecase.simulator, for"
    " instance, is set for usecase=demo alone)"
)


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
    asked = sys.argv[1:]
    # Our file has the name of the plugin's own; that its schema is laid under ours is welcome.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/ray' is validated against")
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand errors to us instead of printing them
    # docker stop, kill and scancel send SIGTERM; joblib ends its workers on KeyboardInterrupt.
    # A cluster that is about to take the machine away sends SIGUSR1 or SIGUSR2.
    for number in supervisor.STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        sys.argv[1:] = resuming.with_run_folder(understood(sys.argv[1:]), groups())
        if {"-m", "--multirun"} & set(sys.argv):
            _sweep(asked)
        else:
            _hydra_main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if show_traceback:
            raise
        sys.exit(_report(error))


def _sweep(asked: list[str]) -> None:
    """Run a sweep; at its end say what became of the jobs."""
    with sweeping.parent():
        try:
            _hydra_main()
        except JobFailed as error:
            sys.exit(sweep_report.say_outcomes() if sweeping.outcomes() else _report(error))
        except KeyboardInterrupt:
            sweep_report.say_outcomes()
            place = sweeping.place()
            if place is not None:
                said = resuming.how_to_resume_sweep(place, asked, resuming.command_words())
                sys.stderr.write(f"sar_experiments: interrupted. {said}")
            raise
        sweep_report.say_outcomes()


def _report(error: Exception) -> int:
    """Write what went wrong as one paragraph and return the exit code."""
    code = USER_MISTAKE
    cluster = cluster_mistake(error)
    if cluster is not None:
        sentence = cluster
    elif isinstance(error, JobFailed):
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
        overrides = hydra_config.overrides.task
        if not is_sweep:
            composed = resuming.with_own_config(composed, folder, overrides, groups())
        config = typed(composed)
        if config.task.name == "serve" and is_sweep:
            raise ConfigError("task=serve is one service and no sweep: leave --multirun out")
        if config.task.name == "monitor":
            _monitor(config, is_sweep=is_sweep)
            return None
        return _run(folder, config, is_sweep=is_sweep)
    except (SarError, OmegaConfBaseException) as error:
        _remove_if_unused(folder)
        if not is_sweep:  # ended here, since Hydra would print its overrides around the sentence
            sys.exit(_report(error))
        why = explain(error)
        sweep_report.report_refusal(folder, why)
        raise JobFailed(why) from None
    except sweeping.SweepStopped as stop:
        _remove_if_unused(folder)
        sweeping.wait_for_the_end()
        raise JobFailed(str(stop)) from None


def _run(folder: Path, config: Config, *, is_sweep: bool) -> float | None:
    hydra_config = HydraConfig.get()
    if is_sweep:
        sweeping.set_place(folder.parent)
    result = job.run_job(
        job.Job(
            folder,
            config,
            overrides=tuple(hydra_config.overrides.task),
            at_once=int(hydra_config.launcher.get("n_jobs", 1)) if is_sweep else None,
        )
    )
    code = supervisor.exit_code(result)
    metric = result.metrics.get(shared_metric([result], config.evaluation.metric))
    if is_sweep:
        sweep_report.report_job(folder, result, code, metric=config.evaluation.metric)
    elif code:  # its own console has said why
        resumable = result.status == "interrupted" or result.cause in ("killed", "oom")
        if resumable and result.task != "serve":
            said = resuming.how_to_resume(folder, result, resuming.command_words())
            sys.stderr.write(f"sar_experiments: {result.why or result.status}. {said}")
        sys.exit(code)
    return metric


def job_folder(number: int, usecase: str, *, _root_: DictConfig) -> str:
    """Return the name of a job's folder in its sweep: number, use case, what tells it from others.

    A sweep with more or reordered values numbers its jobs anew; a job that was there before is
    found by the hash of its config. One that will be refused gets a name all the same.
    """
    composed = _root_.copy()
    with open_dict(composed):
        composed.pop("hydra", None)
    try:
        told = job.config_hash(typed(composed))
    except (SarError, OmegaConfBaseException):
        return f"{number}_{usecase}"
    sweep = Path(str(OmegaConf.select(_root_, "hydra.sweep.dir")))
    known = sorted(sweep.glob(f"*_{told}")) if sweep.is_dir() else []
    return known[0].name if known else f"{number}_{usecase}_{told}"


def _monitor(config: Config, *, is_sweep: bool) -> None:
    """Show runs; needs no process of its own, no GPU and no run folder.

    Raises:
        ConfigError: There is no such folder.
    """
    if is_sweep:
        raise ConfigError("task=monitor watches sweeps and cannot be one: leave --multirun out")
    root = Path(str(config.source or "multirun"))
    if not root.is_dir():
        msg = f"source={root} is no folder; task=monitor shows the runs below one"
        raise ConfigError(msg)
    monitor = importlib.import_module("sar_experiments.monitor")
    monitor.watch(
        root,
        metric=config.evaluation.metric,
        stalled_s=config.monitor.stalled_s,
        refresh_s=config.monitor.refresh_s,
        once=config.monitor.once,
    )


def typed(composed: DictConfig) -> Config:
    """Turn what Hydra composed into a checked Config.

    Hydra's ``+key=value`` opens any node, so the schema is laid over once more.

    Raises:
        ConfigError: A key is unknown, missing or out of range.
        HardwareError: There is no GPU where one was asked for.
    """
    composed = composed.copy()
    if composed.hardware.device is Device.auto:
        is_cfar = composed.model.cfar is not None
        needs_none = computes_on_cpu(composed.task.name, composed.runtime, is_cfar=is_cfar)
        on_gpu = not needs_none and bool(gpus.visible_gpus())
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


def understood(arguments: list[str]) -> list[str]:
    """Return the arguments as Hydra takes them; nothing asked for is help, no hour of training."""
    if not arguments:
        return ["--help"]
    if "task=monitor" in arguments:
        arguments = ["monitor.once=true" if each == "--once" else each for each in arguments]
    return options_first([with_open_key(each) for each in arguments])


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


def groups() -> list[str]:
    """Return the names of the config groups: ours and those of users' own folders."""
    users = filter(None, os.environ.get("SAR_CONF_PATH", "").split(os.pathsep))
    folders = [Path(conf_dir()), *map(Path, users)]
    found = {each.name for folder in folders if folder.is_dir() for each in folder.iterdir()}
    return sorted({name for name in found if "." not in name} | {"local"})


def conf_dir() -> str:
    """Return the folder of our YAML files: in the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return str(folder)
    msg = f"conf/config.yaml is neither in {package} nor beside it: the installation is broken"
    raise ConfigError(msg)


# --- One run -----------------------------------------------------------------------------------


def _remove_if_unused(folder: Path) -> None:
    """Remove a folder that Hydra made for a run that never started."""
    unused = {".hydra", run_folder.CLAIM}
    if folder.is_dir() and {entry.name for entry in folder.iterdir()} <= unused:
        shutil.rmtree(folder)


def _log_to_console(prefix: str) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    house = logging.getLogger("sar_experiments")
    house.handlers[:] = [handler]
    house.setLevel(logging.INFO)
    house.propagate = False


# At import: workers of a sweep import this module to find ``run``.
sweeping.follow_parent()
resolvers.register()
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
ConfigStore.instance().store(name="schema", node=Config)
Plugins.instance().register(UserFolders)
# Or Hydra refuses conf/hydra/sweeper/optuna.yaml, whose name the plugin's own entry has.
ConfigStore.instance().repo["hydra"]["sweeper"].pop("optuna.yaml", None)

_hydra_main = hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")(run)

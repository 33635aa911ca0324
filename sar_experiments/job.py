"""One job: claim its folder, go on or skip or refuse, lease GPUs, supervise, retry."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_experiments import cores, gpus, resuming, run_folder, supervisor, sweeping
from sar_experiments.config import (
    Config,
    Device,
    Runtime,
    hash_excludes,
    processes,
    to_plain,
    to_yaml,
)
from sar_experiments.errors import ConfigError, HardwareError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sar_experiments.run_folder import Result

logger = logging.getLogger(__name__)

CLAIM_POLL_S = 0.5
MAX_ATTEMPTS = 50  # kept in result.json


@dataclass(frozen=True)
class Job:
    """What is to be run.

    Attributes:
        folder: Run folder.
        config: Checked.
        overrides: What the command line changed.
        at_once: Jobs that share the host, this one included; None for a single run.
    """

    folder: Path
    config: Config
    overrides: tuple[str, ...]
    at_once: int | None = None

    @cached_property
    def hash(self) -> str:
        """Return what tells this run from others."""
        return config_hash(self.config)

    @property
    def is_of_sweep(self) -> bool:
        """Whether it is one of several."""
        return self.at_once is not None


def run_job(job: Job) -> Result:
    """Run a job to its end, or return the result of one that need not be repeated.

    Raises:
        SarError: It cannot be run; nothing was changed.
        SweepStopped: The sweep was stopped before the job began.
    """
    with (
        sweeping.at_work(),
        run_folder.claimed(job.folder, on_taken=_taken(job)) as claim,
    ):
        earlier = run_folder.read_result(job.folder)
        if earlier is not None:
            _check_goes_on(job, earlier)
            if _is_finished(job, earlier):
                return earlier
            if job.config.task.name != "report":  # which is made anew
                logger.info("going on with %s (%s)", job.folder, earlier.status)
        return _leased(job, earlier, claim)


def config_hash(config: Config) -> str:
    """Return what tells this run from others: the hash of all that changes its result."""
    return run_folder.config_hash(to_plain(config), exclude=hash_excludes(config))


def _taken(job: Job) -> Callable[[], None]:
    """Return what to do while another process holds the folder: a sweep waits for its result."""
    announced: list[bool] = []

    def refuse_or_wait() -> None:
        if not job.is_of_sweep:
            earlier = run_folder.read_result(job.folder)
            pid = f" (process {earlier.pid})" if earlier is not None and earlier.pid else ""
            msg = f"{job.folder} holds a run that is still going on{pid}"
            raise ConfigError(msg)
        if not announced:
            logger.info("%s goes on in another sweep already; waiting for it", job.folder)
            announced.append(True)
        sweeping.check()
        time.sleep(CLAIM_POLL_S)

    return refuse_or_wait


def _check_goes_on(job: Job, earlier: Result) -> None:
    """Refuse the folder of another run, and one that nobody wants to go on with."""
    if run_folder.is_alive(earlier):
        msg = f"{job.folder} holds a run that is still going on (process {earlier.pid})"
        raise ConfigError(msg)
    if not job.config.resume:
        msg = f"{job.folder} holds a run already and resume=false; choose another output="
        raise ConfigError(msg)
    if job.config.task.name == earlier.task == "report":  # made anew from its sources, always
        return
    if _failed_before_learning(job, earlier):
        return
    different = resuming.differing_keys(job.config, job.folder, earlier, job.hash)
    if different:
        listed = "\n  ".join(different)
        msg = (
            f"{job.folder} holds a run of another config:\n  {listed}\nGive another output=DIR to"
            f" start a new run; or leave these out to resume this one: output={job.folder} without"
            " further keys uses the run's own config"
        )
        raise ConfigError(msg)


def _failed_before_learning(job: Job, earlier: Result) -> bool:
    """Tell whether a mistake ended the run before there was anything to lose."""
    has_learnt = (job.folder / run_folder.LAST_CHECKPOINT).exists()
    is_mistake = earlier.status == "failed" and earlier.cause == "user"
    return earlier.task == "train" and is_mistake and not has_learnt


def _is_finished(job: Job, earlier: Result) -> bool:
    # A service ends well whenever somebody ends it; a report's sources may say more by now.
    if job.config.task.name in ("serve", "report"):
        return False
    if job.config.task.name == "train" and resuming.say_extension(job.config, job.folder):
        return False
    if earlier.status in run_folder.ENDED_WELL and _weights_are_newer(job.config, earlier):
        logger.info("%s is %s, but its weights are newer", job.folder, earlier.status)
        return False
    if earlier.status in run_folder.ENDED_WELL:
        logger.info("%s is %s already; nothing to do", job.folder, earlier.status)
        return True
    if earlier.status == "diverged" and job.is_of_sweep and not job.config.sweep.rerun_diverged:
        logger.info("%s diverged before; sweep.rerun_diverged=true repeats it", job.folder)
        return True
    return False


def _weights_are_newer(config: Config, earlier: Result) -> bool:
    """Tell whether ``weights`` were written after a run that used them began."""
    if config.weights is None or config.task.name == "train" or not earlier.started:
        return False
    is_onnx = config.runtime is Runtime.onnx
    resolve = run_folder.resolve_onnx if is_onnx else run_folder.resolve_weights
    written_s = resolve(Path(config.weights)).stat().st_mtime
    return written_s > datetime.fromisoformat(earlier.started).timestamp()


def _leased(job: Job, earlier: Result | None, claim: int) -> Result:
    hardware = job.config.hardware
    on_cuda = hardware.device is Device.cuda
    if on_cuda and hardware.num_gpus < 1:
        raise HardwareError("hardware.device=cuda needs hardware.num_gpus=1 or more, got 0")
    num_gpus = processes(job.config) if on_cuda else 0
    with gpus.lease(
        num_gpus,
        jobs_per_gpu=hardware.jobs_per_gpu,
        on_wait=lambda: logger.info("waiting for a free GPU"),
        check=sweeping.check,
    ) as lease:
        share = cores.share_of(job.at_once) if job.at_once is not None else None
        place = supervisor.Place(lease.gpus, share, (claim, *lease.descriptors))
        if job.is_of_sweep:
            where = f"GPU {', '.join(lease.gpus)}" if lease.gpus else "the CPU"
            logger.info(
                "start on %s, %d of %d cores: %s -> %s",
                where, share, cores.usable_cores(), " ".join(job.overrides), job.folder,
            )  # fmt: skip
        return _with_retries(job, earlier, place)


def _with_retries(job: Job, earlier: Result | None, place: supervisor.Place) -> Result:
    """Supervise until the job ends well, for a reason not to retry, or too often."""
    attempts = [] if earlier is None else [*earlier.attempts, _attempt(earlier)]
    parts = None if earlier is None else earlier.accumulate_steps
    left = job.config.sweep.retries
    while True:
        result = _supervised(job, place, attempts=attempts[-MAX_ATTEMPTS:], parts=parts)
        if result.status != "failed" or result.cause not in job.config.sweep.retry_on:
            return result
        if left < 1 or sweeping.stop_level() != sweeping.GO_ON:
            return result
        attempts.append(_attempt(result))
        task = job.config.task
        learns = task.name == "train" or task.module is not None  # a user's own may learn too
        accumulates = learns and job.config.sweep.accumulate_on_oom
        if result.cause == "oom" and accumulates:
            parts = more_parts(job.config, parts)
        left -= 1
        _say_retry(result, parts, left)


def more_parts(config: Config, parts: int | None) -> int:
    """Return in how many parts to compute a batch that did not fit: twice as many where it divides.

    The share of one GPU is divided; it cannot be cut finer than one image.
    """
    images = config.solver.ims_per_batch // processes(config)
    now = config.solver.accumulate_steps if parts is None else parts
    finer = [count for count in range(now + 1, images + 1) if images % count == 0]
    return next((count for count in finer if count >= 2 * now), finer[-1] if finer else now)


def _say_retry(result: Result, parts: int | None, left: int) -> None:
    how = "" if parts is None else f", each batch in {parts} parts"
    logger.warning(
        "%s after %.0f s: %s\ntrying again%s (%d more tries left)",
        result.status, result.seconds, result.why, how, left,
    )  # fmt: skip


def _supervised(
    job: Job, place: supervisor.Place, *, attempts: list[dict[str, Any]], parts: int | None
) -> Result:
    config = job.config
    if parts is not None:
        config = replace(config, solver=replace(config.solver, accumulate_steps=parts))
    run_folder.write_atomically(job.folder / run_folder.CONFIG, to_yaml(config))
    start = run_folder.new_result(
        task=config.task.name, config_hash=job.hash, overrides=job.overrides
    )
    return supervisor.supervise(
        job.folder,
        command=[sys.executable, "-m", "sar_experiments.tasks", str(job.folder)],
        place=place,
        grace_s=config.hardware.grace_s,
        console="log" if job.is_of_sweep else "inherit",
        start=replace(start, attempts=list(attempts), accumulate_steps=parts),
    )


def _attempt(result: Result) -> dict[str, Any]:
    kept = ("status", "cause", "why", "seconds", "gpus", "started", "accumulate_steps")
    return {name: getattr(result, name) for name in kept}

"""One run = one fresh process: start it, watch it, stop it cleanly, record how it ended."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from sar_experiments import cores, run_folder, sweeping
from sar_experiments.exit_codes import DONE, FAILED, INTERRUPTED, USER_MISTAKE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import FrameType

    from sar_experiments.run_folder import Result

SUPERVISOR_PID = "SAR_SUPERVISOR_PID"
STOP_SIGNALS = sweeping.SIGNALS
TAIL_LINES = 12
POLL_S = 0.2
KILL_WAIT_S = 120.0
"""How long a job of Slurm waits for its SIGKILL (KillWait, 30 s by default)."""
_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class Place:
    """Where a run computes.

    Attributes:
        gpus: Value of CUDA_VISIBLE_DEVICES; empty shows the run no GPU.
        cores: Share of the host's cores; None leaves what the environment says.
        locks: Open files that carry leases and claims; the run inherits them, so that they hold
            until it has ended, even where its supervisor was killed.
    """

    gpus: Sequence[str] = ()
    cores: int | None = None
    locks: Sequence[int] = ()


def supervise(
    folder: Path,
    *,
    command: Sequence[str],
    start: Result,
    place: Place,
    grace_s: float = 30.0,
    console: Literal["inherit", "log"] = "inherit",
) -> Result:
    """Run a command to its end and return what result.json then says.

    The child records its own end; where it could not (a signal, the out-of-memory killer), this
    function does. What asks to stop is passed on as SIGTERM, on which the child saves and ends;
    a second SIGINT or SIGTERM, or ``grace_s`` seconds, kills it.

    A cluster's signal (SIGUSR1, SIGUSR2) goes, once the child has saved, to whoever handled it
    before: submitit's handler, which puts the job into the queue again and ends this process.

    Args:
        folder: Run folder; made if missing.
        command: What the fresh process executes.
        start: The result to begin with, status ``running``.
        place: Where it computes.
        grace_s: Seconds between SIGTERM and SIGKILL.
        console: Where the child's standard output goes: to ours, or to train.log. Its standard
            error always goes to train.log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    run_folder.write_result(folder, replace(start, gpus=list(place.gpus)))
    with (folder / run_folder.TRAIN_LOG).open("ab") as log:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=None if console == "inherit" else log,
            stderr=log,
            env=_environment(place),
            pass_fds=place.locks,
            start_new_session=True,  # a terminal's Ctrl-C reaches us alone, and we pass it on
        )
    try:
        pid_start = run_folder.process_start(process.pid)
        run_folder.update_result(folder, pid=process.pid, pid_start=pid_start)
        with _signals() as (received, before):
            code = _wait(process, received, grace_s)
    finally:
        _kill_group(process)
    was_asked = bool(received or sweeping.stop_level())
    result = _record_end(folder, code, was_asked, time.monotonic() - began_s)
    if result.status not in run_folder.ENDED_WELL:
        _hand_over(received, before)
    return result


def exit_code(result: Result) -> int:
    """Return the exit code of the contract for a result."""
    if result.status in run_folder.ENDED_WELL:
        return DONE
    if result.status == "interrupted":
        return INTERRUPTED
    return USER_MISTAKE if result.cause == "user" else FAILED


def killed_by(number: int, who: str = "") -> dict[str, object]:
    """Return what result.json says of a process that a signal ended.

    Args:
        number: Of the signal.
        who: Which of several processes, such as "process 1 of 2".
    """
    name = signal.Signals(number).name
    hint = "; the kernel does this when memory runs out" if name == "SIGKILL" else ""
    why = f"{who} was killed by {name}{hint}" if who else f"killed by {name}{hint}"
    return {"status": "failed", "cause": "killed", "why": why}


def die_with_parent(grace_s: float, *, parent: int | None = None) -> None:
    """Make this process end when its supervisor does, even when that one was killed.

    Called by the child first thing. The kernel sends SIGTERM at the parent's death; a watching
    thread makes sure of it, and ends the process after ``grace_s`` seconds whatever it is doing.

    Args:
        grace_s: Seconds between SIGTERM and the end.
        parent: Who started this process; None is its supervisor.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # blocked in a sweep's workers
    if parent is None:
        parent = int(os.environ.get(SUPERVISOR_PID, os.getppid()))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    threading.Thread(target=_watch, args=(parent, grace_s), daemon=True).start()
    atexit.register(_clear_group, parent)


def _clear_group(parent: int) -> None:
    """At the end of an orphan: do what its supervisor would, end what it started."""
    if os.getppid() != parent and os.getsid(0) == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)


def _watch(parent: int, grace_s: float) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    _clear_group(parent)
    os._exit(128 + signal.SIGKILL)


def _environment(place: Place) -> dict[str, str]:
    share = {}
    if place.cores is not None:
        # joblib sets the same in its workers, but not where it runs one job at a time.
        threads = os.environ.get("OMP_NUM_THREADS", str(place.cores))
        share = {cores.SHARE: str(place.cores), "OMP_NUM_THREADS": threads}
    return {
        **os.environ,
        **share,
        "CUDA_VISIBLE_DEVICES": ",".join(place.gpus),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "PYTHONUNBUFFERED": "1",
        SUPERVISOR_PID: str(os.getpid()),
    }


@contextlib.contextmanager
def _signals() -> Iterator[tuple[list[int], dict[int, Any]]]:
    """Collect what asks to stop, instead of ending; outside the main thread nothing arrives.

    In a sweep its parent listens, and ``sweeping.stop_level`` tells. A launcher of another kind
    inherited the blocked signals, which are let through here.

    Yields:
        The signals received so far, and who handled them before.
    """
    received: list[int] = []
    in_thread = threading.current_thread() is not threading.main_thread()
    if in_thread or sweeping.is_blocking():
        yield received, {}
        return

    def remember(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before: dict[int, Any] = {each: signal.signal(each, remember) for each in STOP_SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        yield received, before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)


def _hand_over(received: Sequence[int], before: dict[int, Any]) -> None:
    """Give a cluster's signal to its own handler, now that the child has saved."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        if number in received and callable(before.get(number)):
            before[number](number, None)
    if signal.SIGTERM in received and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        # Slurm takes a job away by SIGTERM, then SIGKILL, and may queue it again. A result now
        # would be the job's last word for the sweep that waits for it.
        time.sleep(KILL_WAIT_S)


def _wait(process: subprocess.Popen[bytes], received: list[int], grace_s: float) -> int:
    """Wait for the end; pass signals on; kill when asked twice or when grace is over."""
    deadline_s: float | None = None
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(POLL_S)
        asked = max(len(received), sweeping.stop_level())
        if asked and deadline_s is None:
            process.terminate()
            deadline_s = time.monotonic() + grace_s
        urgent = sum(number in sweeping.URGENT for number in received)
        is_over = deadline_s is not None and time.monotonic() > deadline_s
        if urgent > 1 or is_over or sweeping.stop_level() == sweeping.KILL:
            _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the child and of its own children, such as loader workers."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _record_end(folder: Path, code: int, was_signalled: bool, seconds: float) -> Result:
    result = run_folder.read_result(folder)
    changes: dict[str, object] = {"seconds": round(seconds, 2), "ended": run_folder.now()}
    if result is None or result.status == "running":
        changes |= _unrecorded_end(code, was_signalled)
    if result is None or result.status not in run_folder.ENDED_WELL:
        changes["log_tail"] = _tail(folder / run_folder.TRAIN_LOG)
    return run_folder.update_result(folder, **changes)


def _unrecorded_end(code: int, was_signalled: bool) -> dict[str, object]:
    """Describe the end of a child that could not do it itself."""
    if was_signalled:
        return {"status": "interrupted", "why": "stopped before it could save"}
    if code < 0:
        return killed_by(-code)
    return {"status": "failed", "cause": "exit", "why": f"ended with exit code {code}"}


def _tail(path: Path) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16_384))
        text = file.read().decode(errors="replace")
    return text.splitlines()[-TAIL_LINES:]

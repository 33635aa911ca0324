"""One run = one fresh process: start it, watch it, stop it cleanly, record how it ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from sar_experiments import run_folder
from sar_experiments.exit_codes import DONE, FAILED, INTERRUPTED, USER_MISTAKE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import FrameType

    from sar_experiments.run_folder import Result

SUPERVISOR_PID = "SAR_SUPERVISOR_PID"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What asks a run to save and end; the last two are a cluster's before it takes a machine away."""
TAIL_LINES = 12
POLL_S = 0.2
KILL_WAIT_S = 120.0
"""How long a job of Slurm waits for its SIGKILL (KillWait, 30 s by default)."""
_PR_SET_PDEATHSIG = 1  # prctl(2)


def supervise(
    folder: Path,
    *,
    command: Sequence[str],
    start: Result,
    gpus: Sequence[str],
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
        gpus: Value of CUDA_VISIBLE_DEVICES; empty shows the child no GPU.
        grace_s: Seconds between SIGTERM and SIGKILL.
        console: Where the child's standard output goes: to ours, or to train.log. Its standard
            error always goes to train.log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    run_folder.write_result(folder, replace(start, gpus=list(gpus)))
    with (folder / run_folder.TRAIN_LOG).open("ab") as log:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=None if console == "inherit" else log,
            stderr=log,
            env=_environment(gpus),
            start_new_session=True,  # a terminal's Ctrl-C reaches us alone, and we pass it on
        )
    try:
        pid_start = run_folder.process_start(process.pid)
        run_folder.update_result(folder, pid=process.pid, pid_start=pid_start)
        with _signals() as (received, before):
            code = _wait(process, received, grace_s)
    finally:
        _kill_group(process)
    result = _record_end(folder, code, bool(received), time.monotonic() - began_s)
    if result.status != "completed":
        _hand_over(received, before)
    return result


def exit_code(result: Result) -> int:
    """Return the exit code of the contract for a result."""
    if result.status == "completed":
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
    if parent is None:
        parent = int(os.environ.get(SUPERVISOR_PID, os.getppid()))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    threading.Thread(target=_watch, args=(parent, grace_s), daemon=True).start()


def _watch(parent: int, grace_s: float) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os._exit(128 + signal.SIGKILL)


def _environment(gpus: Sequence[str]) -> dict[str, str]:
    return {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": ",".join(gpus),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "PYTHONUNBUFFERED": "1",
        SUPERVISOR_PID: str(os.getpid()),
    }


@contextlib.contextmanager
def _signals() -> Iterator[tuple[list[int], dict[int, Any]]]:
    """Collect what asks to stop, instead of ending; outside the main thread nothing arrives.

    Yields:
        The signals received so far, and who handled them before.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received, {}
        return

    def remember(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before: dict[int, Any] = {each: signal.signal(each, remember) for each in STOP_SIGNALS}
    try:
        yield received, before
    finally:
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
    parent = os.getppid()
    deadline_s: float | None = None
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(POLL_S)
        if os.getppid() != parent:  # a sweep's worker whose parent was killed
            _kill_group(process)
            os._exit(FAILED)
        if received and deadline_s is None:
            process.terminate()
            deadline_s = time.monotonic() + grace_s
        urgent = sum(number in (signal.SIGINT, signal.SIGTERM) for number in received)
        if urgent > 1 or (deadline_s is not None and time.monotonic() > deadline_s):
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
    if result is None or result.status != "completed":
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

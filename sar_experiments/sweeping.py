"""What the parent of a sweep and its workers tell each other: stop, who is at work, how jobs ended.

A sweep's jobs run in joblib's workers, which joblib kills with all their children when a signal
reaches the parent; a run would lose what it did since its last checkpoint. So workers block
SIGNALS, and one thread of the parent takes them: it leaves a file in a folder that the
workers look into; they stop their runs politely, and only then does the parent end. Jobs
that another launcher starts on a cluster take no part in this.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING

from sar_experiments.exit_codes import FAILED, INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What asks a run to save and end; the last two are a cluster's before it takes a machine away."""

URGENT = (signal.SIGINT, signal.SIGTERM)
"""What, sent twice, asks to end at once."""

GO_ON, STOP, KILL = 0, 1, 2
POLL_S = 0.1
END_S = 30.0  # at the most; the parent ends within POLL_S

_FOLDER, _PARENT = "SAR_SWEEP_FOLDER", "SAR_SWEEP_PARENT"  # environment of the workers
_STOP, _KILL, _OUTCOMES, _AT_WORK = "stop", "kill", "outcomes.jsonl", "at-work-"
_PLACE = "place"
_WORKER = "LokyProcess"  # what joblib calls its workers
_WAKE = signal.SIGRTMIN  # sent by our thread to the main thread, which blocks the others
_PR_SET_PDEATHSIG = 1  # prctl(2)


class SweepStopped(Exception):  # noqa: N818 - nothing went wrong
    """Somebody asked the sweep to stop before this job began."""


@contextlib.contextmanager
def parent() -> Iterator[None]:
    """Listen for signals while a sweep goes on; its workers inherit what is set here.

    Raises:
        KeyboardInterrupt: A signal came, and all running jobs have ended.
    """
    folder = Path(tempfile.mkdtemp(prefix="sar-sweep-"))
    os.environ |= {_FOLDER: str(folder), _PARENT: f"{os.getpid()} {socket.gethostname()}"}
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, _leave_to_thread)
    signal.signal(_WAKE, _interrupt)
    resource_tracker.ensure_running()  # started later, it would unblock the signals
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_listen, args=(folder, reader), daemon=True).start()
    try:
        yield
    finally:
        signal.signal(_WAKE, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        writer.close()
        gone = folder.rename(folder.with_name(f"{folder.name}-over"))  # at once, for all workers
        shutil.rmtree(gone, ignore_errors=True)


def follow_parent() -> None:
    """In a worker: die when the parent does; called when the worker imports the door."""
    if not multiprocessing.current_process().name.startswith(_WORKER):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # inherited, but of what joblib did since
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if _PARENT in os.environ and os.getppid() != int(os.environ[_PARENT].split()[0]):
        os._exit(FAILED)


def stop_level() -> int:
    """Return GO_ON, STOP (save and end) or KILL (end at once)."""
    folder = _folder()
    if folder is None:  # a worker whose sweep is over begins nothing more
        return STOP if _is_worker() else GO_ON
    return KILL if (folder / _KILL).exists() else STOP if (folder / _STOP).exists() else GO_ON


def check() -> None:
    """Go on unless the sweep is to stop.

    Raises:
        SweepStopped: It is.
    """
    if stop_level() != GO_ON:
        raise SweepStopped("the sweep was stopped")


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """Let the parent wait for this process; first announced, then checked, so none is missed.

    Raises:
        SweepStopped: Too late to begin.
    """
    folder = _folder()
    if folder is None:
        check()
        yield
        return
    mark = folder / f"{_AT_WORK}{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):  # over since then, which the check finds
        mark.touch()
    try:
        check()
        yield
    finally:
        mark.unlink(missing_ok=True)


def report(outcome: dict[str, str]) -> None:
    """Tell the parent how a job ended."""
    folder = _folder()
    if folder is not None:
        with (
            contextlib.suppress(FileNotFoundError),
            (folder / _OUTCOMES).open("a", encoding="utf-8") as file,
        ):
            file.write(json.dumps(outcome) + "\n")  # one write of one line: appends do not mix


def outcomes() -> list[dict[str, str]]:
    """In the parent: how jobs ended, in the order of their ends."""
    folder = _folder()
    if folder is None or not (folder / _OUTCOMES).is_file():
        return []
    return [json.loads(line) for line in (folder / _OUTCOMES).read_text().splitlines()]


def set_place(folder: Path) -> None:
    """In a job: tell the parent the folder of the sweep."""
    shared = _folder()
    if shared is not None:
        with contextlib.suppress(FileNotFoundError):
            (shared / _PLACE).write_text(str(folder.resolve()), encoding="utf-8")


def place() -> Path | None:
    """In the parent: return the folder of the sweep; None if no job has begun."""
    shared = _folder()
    if shared is None or not (shared / _PLACE).is_file():
        return None
    return Path((shared / _PLACE).read_text(encoding="utf-8"))


def is_parent() -> bool:
    """Tell whether this process runs a sweep."""
    return os.environ.get(_PARENT) == f"{os.getpid()} {socket.gethostname()}"


def wait_for_the_end() -> None:
    """In a job of a sweep that was stopped: let the parent end before it counts this as a result.

    It kills its workers, or in its own process raises KeyboardInterrupt, when no job is at work.
    """
    if stop_level() != GO_ON:
        time.sleep(END_S)


def is_blocking() -> bool:
    """Tell whether this process leaves signals to a sweep's parent, or is that parent.

    Jobs of a cluster inherit the environment too, but stop by their cluster's signals.
    """
    return _is_worker() or is_parent()


def _is_worker() -> bool:
    name = multiprocessing.current_process().name
    return _PARENT in os.environ and name.startswith(_WORKER)


def _folder() -> Path | None:
    folder = Path(os.environ.get(_FOLDER, "/nonexistent"))
    return folder if is_blocking() and folder.is_dir() else None


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _leave_to_thread(_number: int, _frame: FrameType | None) -> None:
    """Do nothing in the main thread; what wakes the listening thread is the wakeup file."""


def _be_silent(_arguments: threading.ExceptHookArgs) -> None:
    """Print no traceback."""


def _listen(folder: Path, wakeups: socket.socket) -> None:
    """Wait for the first signal, let the jobs end, then interrupt the main thread."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # one thread at least must take them
    received = [_next_signal(wakeups, None)]
    if None in received:
        return
    (folder / _STOP).touch()
    _say("stopping: running jobs save and end; once more kills them")
    while _someone_at_work(folder):
        received.append(_next_signal(wakeups, POLL_S))
        if sum(number in URGENT for number in received) > 1:
            (folder / _KILL).touch()
    threading.excepthook = _be_silent  # joblib's threads, whose workers are about to be killed
    signal.pthread_kill(threading.main_thread().ident or 0, _WAKE)
    if _next_signal(wakeups, None) is not None:  # only if joblib does not come to an end
        os._exit(INTERRUPTED)


def _next_signal(wakeups: socket.socket, seconds: float | None) -> int | None:
    """Wait for one of SIGNALS; None after so many seconds, or when the sweep is over."""
    wakeups.settimeout(seconds)
    while True:
        try:
            number = wakeups.recv(1)
        except (TimeoutError, OSError):
            return None
        if not number:
            return None
        if number[0] in SIGNALS:
            return number[0]


def _someone_at_work(folder: Path) -> bool:
    pids = [path.name.removeprefix(_AT_WORK) for path in folder.glob(f"{_AT_WORK}*")]
    return any(Path("/proc", pid).exists() for pid in pids)


def _say(sentence: str) -> None:
    sys.stderr.write(f"sar_experiments: {sentence}\n")
    sys.stderr.flush()

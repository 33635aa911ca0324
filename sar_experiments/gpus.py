"""Leases of GPUs between the processes of one host, by kernel locks keyed by GPU UUID.

The kernel frees a lock when its holders die, however they die. Holders are the supervisor of a run
and the run itself, which inherits the open files: a GPU is free when both are gone. Python hands
no file on to further children unless asked to.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sar_experiments.errors import HardwareError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


_NO_GPU = ("", "-1", "NoDevFiles")  # the last is Slurm's for a job without any


@dataclass(frozen=True)
class Gpu:
    """One GPU of the host.

    Attributes:
        uuid: What nvidia-smi calls it, the same in every container; a made-up id in tests.
        index: nvidia-smi's index; -1 for an id that nvidia-smi does not know.
        name: Model name; empty where unknown.
    """

    uuid: str
    index: int = -1
    name: str = ""


@dataclass(frozen=True)
class Lease:
    """GPUs that this process holds.

    Attributes:
        gpus: The value for CUDA_VISIBLE_DEVICES.
        descriptors: Open files that carry the locks, for a child to inherit.
    """

    gpus: tuple[str, ...]
    descriptors: tuple[int, ...] = ()


def visible_gpus() -> list[Gpu]:
    """Return the GPUs that this process may use, without importing PyTorch.

    SAR_GPUS, else CUDA_VISIBLE_DEVICES names them by index or UUID; else all that nvidia-smi
    shows. An id that nvidia-smi does not know is taken as it is. In a job of Slurm, those that
    Slurm gave it, whatever SAR_GPUS of the machine that it was sent from says.
    """
    assigned = os.environ.get("CUDA_VISIBLE_DEVICES")
    is_slurm_job = "SLURM_JOB_ID" in os.environ and assigned is not None
    wanted = assigned if is_slurm_job else os.environ.get("SAR_GPUS", assigned)
    if wanted is None:
        return list(_installed())
    ids = [each.strip() for each in wanted.split(",") if each.strip() not in _NO_GPU]
    return [_by_id(each) for each in ids]


def gpu_slots(per_job: int, jobs_per_gpu: int = 1) -> int:
    """Return how many jobs run at once here, at least 1."""
    return max(1, len(visible_gpus()) * jobs_per_gpu // max(1, per_job))


@contextlib.contextmanager
def lease(
    count: int,
    *,
    jobs_per_gpu: int = 1,
    poll_s: float = 0.2,
    on_wait: Callable[[], None] | None = None,
    check: Callable[[], None] | None = None,
) -> Iterator[Lease]:
    """Hold ``count`` GPUs, all or none, so that two jobs wanting all of them cannot deadlock.

    Args:
        count: 0 leases nothing and does not wait.
        jobs_per_gpu: Slots of each GPU; the emptiest GPUs are taken first.
        poll_s: Seconds between tries while too few are free.
        on_wait: Called once if there is need to wait.
        check: Called before every try; what it raises ends the wait.

    Raises:
        HardwareError: More are wanted than visible, or the lock folder cannot be written.
    """
    gpus = visible_gpus()
    if count > len(gpus):
        names = ", ".join(gpu.uuid for gpu in gpus) or "none"
        msg = f"hardware.num_gpus={count}, but {len(gpus)} visible ({names})"
        raise HardwareError(msg)
    held: dict[str, IO[str]] = {}
    waited = False
    try:
        while len(held) < count:
            if check is not None:
                check()
            held = _try_all(gpus, count, jobs_per_gpu)
            if not held:
                if on_wait is not None and not waited:
                    on_wait()
                waited = True
                time.sleep(poll_s)
        yield Lease(tuple(held), tuple(file.fileno() for file in held.values()))
    finally:
        for file in held.values():
            file.close()


def lock_folder() -> Path:
    """Return the folder of the locks: SAR_GPU_LOCK_DIR, or one in the host's temporary folder.

    Everyone on the host may write there, since they share the GPUs.
    """
    default = Path(tempfile.gettempdir()) / "sar-gpu-locks"
    folder = Path(os.environ.get("SAR_GPU_LOCK_DIR", default))
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o1777)
    except OSError as error:
        msg = f"SAR_GPU_LOCK_DIR={folder} cannot be made: {error.strerror}"
        raise HardwareError(msg) from error
    return folder


def _try_all(gpus: Sequence[Gpu], count: int, slots: int) -> dict[str, IO[str]]:
    """Lock a slot of ``count`` GPUs, or none."""
    folder = lock_folder()
    with _opened(folder / "mutex") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        held: dict[str, IO[str]] = {}
        for slot in range(slots):  # a first job for every GPU before a second for any
            for gpu in gpus:
                if len(held) == count or gpu.uuid in held:
                    continue
                file = _try_lock(folder / f"gpu-{gpu.uuid}.{slot}.lock")
                if file is not None:
                    held[gpu.uuid] = file
        if len(held) == count:
            return held
        for file in held.values():
            file.close()
        return {}


def _try_lock(path: Path) -> IO[str] | None:
    file = _opened(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    file.seek(0)
    file.truncate()
    file.write(f"{os.getpid()}\n")  # for people who look; the lock itself is the kernel's
    file.flush()
    return file


def _opened(path: Path) -> IO[str]:
    try:
        descriptor = _descriptor(path)
    except OSError as error:
        msg = f"GPU lock {path} cannot be opened ({error.strerror}); set SAR_GPU_LOCK_DIR"
        raise HardwareError(msg) from error
    return os.fdopen(descriptor, "r+")


def _descriptor(path: Path) -> int:
    """Open a lock that may be another user's; make it where it is missing.

    Never O_CREAT on an existing file: in a folder that everyone may write the kernel refuses that
    for other users' files (fs.protected_regular, which distributions switch on).
    """
    while True:
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        with contextlib.suppress(FileExistsError):  # somebody else was faster
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            os.fchmod(descriptor, 0o666)  # whatever the umask
            return descriptor


def _by_id(wanted: str) -> Gpu:
    for gpu in _installed():
        if wanted == str(gpu.index) or (not wanted.isdigit() and gpu.uuid.startswith(wanted)):
            return gpu
    return Gpu(wanted)


@cache
def _installed() -> tuple[Gpu, ...]:
    command = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [line.split(", ", 2) for line in done.stdout.splitlines() if line.strip()]
    return tuple(Gpu(uuid, int(index), name) for index, uuid, name in rows)

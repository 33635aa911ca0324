"""What a run leaves behind: names, result.json, versions; each file written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_experiments.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONFIG = "config.yaml"
DETECTRON2 = "detectron2.yaml"
TRAIN_LOG = "train.log"
TILE_LOG = "tiles.jsonl"
METRICS = "metrics.jsonl"
MODEL_BEST = "model_best.pth"
MODEL_FINAL = "model_final.pth"
MODEL_ONNX = "model.onnx"
LAST_CHECKPOINT = "last_checkpoint"
DETECTIONS = "detections.json"
RESULT = "result.json"
THRESHOLDS = "thresholds.json"
CHECK = "check.json"
TRAIN_SPLIT = "train_split.json"
VAL_SPLIT = "val_split.json"

CLAIM = ".claim"

ANY_CLASS = "_any_class"
"""Ends the names of class-agnostic metrics: a detection hits any object that it overlaps enough.
A detector that names no classes has no others."""

STATUSES = ("running", "completed", "pruned", "failed", "diverged", "interrupted")
ENDED_WELL = ("completed", "pruned")
CAUSES = ("", "user", "exception", "killed", "exit", "oom")

PACKAGES = ("sar-experiments", "torch", "torchvision", "detectron2", "hydra-core", "numpy")


@dataclass(frozen=True)
class Result:
    """How a run goes or went: the content of result.json.

    Attributes:
        status: One of STATUSES.
        task: What the run does.
        why: One sentence where it did not complete.
        cause: One of CAUSES: a user's mistake, a Python exception, a signal, an exit code without
            a word, too little memory; empty where it completed or goes on.
        metrics: Name -> value; None where a metric has no meaning on the data.
        names_classes: Whether the detector names classes. A CFAR does not, and where a data set
            has several, all its metrics have names that end in ``_any_class``.
        config_hash: Of the config without what does not change the result.
        overrides: What the command line changed.
        seconds: Wall time of the last process.
        gpus: Leased GPUs; empty on the CPU.
        git_commit: Of the checkout that holds the package, "+dirty" with changes; in an image
            what it was built from; None elsewhere.
        versions: Python and package versions.
        host: Name of the machine.
        pid: Process that runs the task.
        pid_start: Its start time in kernel ticks, which tells a reused pid.
        started: Time of the start, ISO 8601, UTC.
        ended: Time of the end; empty while it goes on.
        log_tail: Last lines of train.log where it failed.
        details: More, for instance losses and files of a divergence.
        accumulate_steps: Parts that a batch is computed in, where the run was retried with more.
        attempts: Earlier tries of this run that ended otherwise, oldest first: status, cause, why,
            seconds, gpus, started, accumulate_steps.
    """

    status: str
    task: str
    why: str = ""
    cause: str = ""
    metrics: dict[str, float | None] = field(default_factory=dict)
    names_classes: bool = True
    config_hash: str = ""
    overrides: list[str] = field(default_factory=list)
    seconds: float = 0.0
    gpus: list[str] = field(default_factory=list)
    git_commit: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    host: str = ""
    pid: int = 0
    pid_start: int = 0
    started: str = ""
    ended: str = ""
    log_tail: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    accumulate_steps: int | None = None
    attempts: list[dict[str, Any]] = field(default_factory=list)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: a reader sees the old content or the new one."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically; NaN and infinity, which JSON does not have, become null."""
    write_atomically(path, json.dumps(_finite(content), indent=1, default=str) + "\n")


def read_result(folder: Path) -> Result | None:
    """Return the result of a run folder; None where there is none or it cannot be read.

    Unknown keys, which a newer version may write, are left out.
    """
    try:
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    known = {each.name for each in fields(Result)}
    if not isinstance(content, dict) or not {"status", "task"} <= content.keys():
        return None
    return Result(**{key: value for key, value in content.items() if key in known})


def write_result(folder: Path, result: Result) -> None:
    """Write result.json."""
    write_json(folder / RESULT, asdict(result))


def update_result(folder: Path, **changes: Any) -> Result:  # noqa: ANN401 - fields of Result
    """Change fields of result.json, which must exist, and return the new result.

    The supervisor and its child both do this: a lock on the folder keeps either's change.
    """
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = read_result(folder)
        assert result is not None, f"{folder / RESULT} is written when a run starts"
        result = replace(result, **changes)
        write_result(folder, result)
    finally:
        os.close(lock)
    return result


def new_result(*, task: str, config_hash: str, overrides: Sequence[str]) -> Result:
    """Return the result of a run that starts now."""
    return Result(
        status="running",
        task=task,
        config_hash=config_hash,
        overrides=list(overrides),
        git_commit=git_commit(),
        versions=versions(),
        host=socket.gethostname(),
        started=now(),
    )


def config_hash(config: Mapping[str, Any], *, exclude: Sequence[str]) -> str:
    """Return 12 hex digits that two configs share if they make the same result.

    Args:
        config: Plain values.
        exclude: Keys that do not change the result, dotted below the top level.
    """
    kept = _without(config, exclude)
    canonical = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _without(config: Mapping[str, Any], exclude: Sequence[str], prefix: str = "") -> dict[str, Any]:
    return {
        key: _without(value, exclude, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in config.items()
        if f"{prefix}{key}" not in exclude
    }


@contextlib.contextmanager
def claimed(folder: Path, *, on_taken: Callable[[], None]) -> Iterator[int]:
    """Hold a run folder against every other process; yields the open file that carries the lock.

    A child that inherits the file holds the folder as well, after its parent died.

    Args:
        folder: Run folder; made if missing.
        on_taken: Called again and again while another process holds it; waits or raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / CLAIM, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        while not _is_locked(descriptor):
            on_taken()
        yield descriptor
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    """Take the lock if it is free; a file system without locks is taken as free."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def cache_folder() -> Path:
    """Return the folder of what can be made again, the same for all runs of a user.

    ``SAR_CACHE_DIR``, else ``sar_experiments`` below ``XDG_CACHE_HOME`` or ``~/.cache``. It need
    not exist; who cannot write it does without.
    """
    chosen = os.environ.get("SAR_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path("~/.cache").expanduser()) / "sar_experiments"


def resolve_weights(path: Path) -> Path:
    """Return the checkpoint file that a run folder or a file means.

    Raises:
        CheckpointError: There is none; says what was found and what is accepted.
    """
    if path.is_file():
        return path
    if not path.exists():
        msg = f"{path} does not exist; accepted are a run folder or a checkpoint file"
        raise CheckpointError(msg)
    for name in (MODEL_BEST, MODEL_FINAL):
        if (path / name).is_file():
            return path / name
    runs = sorted(found.parent.name for found in path.glob(f"*/{RESULT}"))
    if runs:
        msg = f"{path} is a sweep, not a run; give one of its runs: {', '.join(runs[:10])}"
    elif (path / RESULT).is_file():
        status = getattr(read_result(path), "status", "unreadable")
        msg = f"{path} is a run without {MODEL_BEST} (status {status})"
        if (path / LAST_CHECKPOINT).is_file():
            last = path / (path / LAST_CHECKPOINT).read_text(encoding="utf-8").strip()
            msg += f"; {how_to_go_on(path)}, and {last} is its last checkpoint"
    else:
        msg = f"{path} holds neither {MODEL_BEST} nor {MODEL_FINAL}: not a run folder"
    raise CheckpointError(msg)


def resolve_onnx(path: Path) -> Path:
    """Return the ONNX file that a folder or a file means.

    Raises:
        CheckpointError: There is none; says what writes one.
    """
    found = path / MODEL_ONNX if path.is_dir() else path
    if found.is_file() and found.suffix == ".onnx":
        return found
    msg = (
        f"runtime=onnx: {found} is no ONNX file; task=export weights={path} writes one into the run"
        f" folder as {MODEL_ONNX}"
    )
    raise CheckpointError(msg)


def how_to_go_on(folder: Path) -> str:
    """Return the half of a sentence that tells how an interrupted run is continued."""
    return f"output={folder} resumes it"


def is_alive(result: Result) -> bool:
    """Tell whether the run's process still goes on; only its own host can tell."""
    if result.status != "running" or result.host != socket.gethostname() or not result.pid:
        return False
    return process_start(result.pid) == result.pid_start != 0


def process_start(pid: int) -> int:
    """Return when a process started, in kernel ticks since boot; 0 if it does not run."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    state, *rest = text.rpartition(")")[2].split()
    return 0 if state == "Z" else int(rest[18])  # field 22 of proc(5), starttime


def parse_time(text: str) -> float:
    """Return the seconds since 1970 of what ``now`` wrote.

    Raises:
        ValueError: It is no such text.
    """
    return datetime.fromisoformat(text).timestamp()


def now() -> str:
    """Return the time, ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def versions() -> dict[str, str]:
    """Return the versions that results depend on, without importing the packages."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


@cache
def git_commit() -> str | None:
    """Return the commit of the checkout that holds the package.

    Outside one SAR_GIT_COMMIT says it, which docker/Dockerfile sets; else None.
    """
    package = Path(__file__).resolve().parent
    if not (package.parent / ".git").exists():
        return os.environ.get("SAR_GIT_COMMIT") or None
    try:
        commit = _git(package, "rev-parse", "HEAD")
        changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+dirty" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _finite(content: object) -> object:
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, Mapping):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content

"""Tell Docker whether the container does its work; standard library only, milliseconds.

    python3 healthcheck.py                 the runs of this container still write files
    python3 healthcheck.py http PORT PATH  the server answers with 200

A container without a run (waiting for a free GPU, an open shell) is healthy.
SAR_HEALTH_IDLE_S is how long a run may write nothing: a checkpoint of a large model and an
evaluation of many images take their time.
"""

import os
import sys
import time
import urllib.request
from pathlib import Path

HEALTHY, UNHEALTHY = 0, 1
IDLE_S = float(os.environ.get("SAR_HEALTH_IDLE_S", "3600"))
TASKS = b"sar_experiments.tasks"


def main(arguments: list[str]) -> int:
    """Print one line and return the exit code that Docker reads."""
    match arguments:
        case []:
            sentence, code = runs_write()
        case ["http", port, path]:
            sentence, code = server_answers(f"http://127.0.0.1:{port}{path}")
        case _:
            sentence, code = f"usage: {sys.argv[0]} [http PORT PATH]", UNHEALTHY
    sys.stdout.write(f"{sentence}\n")
    return code


def runs_write() -> tuple[str, int]:
    """Look at the folders of the runs that are going on."""
    folders = run_folders()
    for folder in folders:
        idle_s = time.time() - last_written(folder)
        if idle_s > IDLE_S:
            return f"{folder}: nothing written for {idle_s:.0f} s", UNHEALTHY
    return f"{len(folders)} run(s) at work", HEALTHY


def run_folders() -> list[Path]:
    """Return what the command lines of this container's processes name."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # ended meanwhile, or somebody else's
            continue
        if TASKS in words[:-1]:
            found.append(Path(os.fsdecode(words[words.index(TASKS) + 1])))
    return found


def last_written(folder: Path) -> float:
    """Return when a file was last written there, seconds since the epoch; now if there is none."""
    times = [entry.stat().st_mtime for entry in os.scandir(folder) if entry.is_file()]
    return max(times, default=time.time())


def server_answers(url: str) -> tuple[str, int]:
    """Ask the server of this container."""
    try:
        with urllib.request.urlopen(url, timeout=8) as answer:  # raises for 400 and above
            return f"{url}: {answer.status}", HEALTHY
    except OSError as error:
        return f"{url}: {error}", UNHEALTHY


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Optuna's study of a sweep: one sqlite file in the sweep's folder, read without Optuna."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from sar_experiments import sweeping

FILE = "optuna.db"


def storage(sweep: str) -> str:
    """Return the address of a sweep's study, in a folder that exists.

    Trials that were cut off are put back into the queue, so that they are asked for again with
    the same values: their runs are found by their config, and go on from their checkpoints.
    """
    path = Path(sweep).absolute() / FILE
    if sweeping.is_parent():
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            _queue_again(path)
    return f"sqlite:///{path}"


def trials_left(sweep: str, wanted: int) -> int:
    """Return how many trials are to come until ``wanted`` have completed; 0 or more."""
    path = Path(sweep) / FILE
    if not path.is_file():
        return wanted
    count = 0
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as base:
        (count,) = base.execute("SELECT COUNT(*) FROM trials WHERE state = 'COMPLETE'").fetchone()
    return max(0, wanted - int(count))


def _queue_again(path: Path) -> None:
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as base:
        base.execute("UPDATE trials SET state = 'WAITING' WHERE state = 'RUNNING'")
        base.commit()

"""How many cores this process may keep busy."""

from __future__ import annotations

import math
import os
from pathlib import Path

SHARE = "SAR_CORES"
"""Environment variable: what a sweep gives each of the jobs that it runs at once."""

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Return the cores of this process: its affinity, its container's quota, its sweep's share."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = CPU_QUOTA.read_text(encoding="ascii").split()
        cores = min(cores, max(1, math.floor(int(quota) / int(period))))
    except (OSError, ValueError):  # no control groups, or "max": no quota
        pass
    share = os.environ.get(SHARE, "")
    return min(cores, max(1, int(share))) if share.isdigit() else cores


def share_of(jobs_at_once: int) -> int:
    """Return the cores of one of several jobs, at least 1."""
    return max(1, usable_cores() // max(1, jobs_at_once))

"""What a sweep says on the console: each job at its end, and all of them when it is over."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from typing import TYPE_CHECKING

from hydra.errors import CompactHydraException

from sar_experiments import run_folder, summary, sweeping
from sar_experiments.exit_codes import DONE, FAILED, USER_MISTAKE
from sar_experiments.standings import shared_metric

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

TAIL_LINES = 8


class JobFailed(CompactHydraException):
    """One run of a sweep did not end well; a plain message, as it is pickled back to the parent."""


def report_job(folder: Path, result: run_folder.Result, code: int, *, metric: str) -> None:
    """Say at once how a job of a sweep ended, and renew the summary.

    Raises:
        JobFailed: It did not end well.
    """
    own = shared_metric([result], metric)
    value = result.metrics.get(own)
    number = "" if value is None else f", {own} {value:.4f}"
    why = f", {result.why}" if result.why else ""
    logger.info("%s after %.0f s%s%s", result.status, result.seconds, number, why)
    if code and result.log_tail:
        tail = "\n  | ".join(result.log_tail[-TAIL_LINES:])
        logger.info("end of %s:\n  | %s", folder / run_folder.TRAIN_LOG, tail)
    board = summary.write_summary(folder.parent, metric=metric)
    logger.info("leaderboard of %s\n%s", folder.parent, board)
    sweeping.report(_outcome(folder, result.status, result.why, code))
    if code:
        sweeping.wait_for_the_end()
        msg = f"{folder}: {result.status}, {result.why}"
        raise JobFailed(msg)


def report_refusal(folder: Path, why: str) -> None:
    """Say at once that a job of a sweep cannot be run."""
    logger.error("refused: %s", why)
    sweeping.report(_outcome(folder, "refused", why, USER_MISTAKE))


def say_outcomes() -> int:
    """Write how many jobs ended how, and why; return the exit code of a sweep that went wrong."""
    outcomes = sweeping.outcomes()
    if not outcomes:  # none began, or all ran on a cluster
        return FAILED
    counts = Counter(outcome["status"] for outcome in outcomes)
    said = ", ".join(f"{count} {status}" for status, count in counts.items())
    lines = [f"sar_experiments: sweep of {len(outcomes)} jobs: {said}"]
    lines += [
        f"  {each['status']}: {each['job']}: {each['why']}" for each in outcomes if each["why"]
    ]
    sys.stderr.write("\n".join(lines) + "\n")
    codes = {int(outcome["code"]) for outcome in outcomes} - {DONE}
    return codes.pop() if len(codes) == 1 else FAILED


def _outcome(folder: Path, status: str, why: str, code: int) -> dict[str, str]:
    return {"job": folder.name, "status": status, "why": why, "code": str(code)}

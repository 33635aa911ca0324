"""How a task ended: any exception as an exit code and what result.json is to say."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sar_experiments import run_folder
from sar_experiments.errors import DivergedError, SarError
from sar_experiments.exit_codes import FAILED, INTERRUPTED, USER_MISTAKE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger("sar_experiments.tasks")
tracebacks = logging.getLogger("sar_experiments.traceback")


@dataclass(frozen=True)
class Ending:
    """The end of a task.

    Attributes:
        code: Exit code of the contract.
        changes: Fields of result.json that nobody has written yet.
    """

    code: int
    changes: dict[str, Any] = field(default_factory=dict)


def attempt(work: Callable[[], Ending]) -> Ending:
    """Do the work and return how it ended, whatever it raises."""
    try:
        return work()
    except SarError as error:
        return _failed(str(error), cause="user", code=USER_MISTAKE)
    except DivergedError as error:
        details = {"step": error.step, "losses": error.losses, "files": error.files}
        return Ending(FAILED, {"status": "diverged", "why": str(error), "details": details})
    except KeyboardInterrupt:
        why = "interrupted; output= with the folder of this run resumes it"
        return Ending(INTERRUPTED, {"status": "interrupted", "why": why})
    except Exception as error:  # noqa: BLE001 - outermost: whatever it is, it is recorded
        tracebacks.exception("the task failed")
        if type(error).__name__ == "OutOfMemoryError":  # PyTorch's, which may not be imported
            why = (
                f"out of GPU memory: {error}. Try a smaller solver.ims_per_batch in training,"
                " evaluation.batch_size or predict.batch_size after it"
            )
            return _failed(why, cause="oom", code=FAILED)
        why = f"{type(error).__name__}: {error} (traceback in {run_folder.TRAIN_LOG})"
        return _failed(why, cause="exception", code=FAILED)


def record(folder: Path, ending: Ending) -> int:
    """Say how the task ended, on the console and in result.json, and return the exit code."""
    if ending.changes:
        run_folder.update_result(folder, **ending.changes)
        sentence = ending.changes["why"]
        if ending.changes["status"] == "diverged":
            sentence = f"diverged: {sentence}"
        if ending.code != INTERRUPTED:
            logger.error("%s", sentence)
    return ending.code


def _failed(why: str, *, cause: str, code: int) -> Ending:
    return Ending(code, {"status": "failed", "why": why, "cause": cause})

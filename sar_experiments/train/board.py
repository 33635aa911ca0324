"""What TensorBoard shows besides the curves: texts, precision-recall curves, hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

THRESHOLDS = 101
"""Score thresholds of a precision-recall curve: 0, 0.01, ..., 1."""
FINAL = "final"
"""Folder in the run folder, and group, of the final metrics."""
HPARAMS = ("solver", "model", "augment", "radiometry", "usecase", "seed")
"""Groups whose scalar keys the HPARAMS tab compares."""


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Show texts, such as the config, in a monospaced block each."""
    with SummaryWriter(str(folder), filename_suffix=".texts") as writer:
        for title, text in texts.items():
            indented = "\n".join(f"    {line}" for line in text.splitlines())  # Markdown for code
            writer.add_text(title, indented, 0)


@dataclass(frozen=True, eq=False)
class ScoredCurve:
    """Precision and recall over falling score thresholds.

    Attributes:
        scores: (N,) falling.
        precision: (N,) in [0, 1].
        recall: (N,) in [0, 1], rising.
        truths: Number of objects there are.
    """

    scores: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    truths: int


def write_curves(folder: Path, curves: Mapping[str, ScoredCurve], *, step: int) -> None:
    """Show precision over recall.

    TensorBoard leaves out points without hits and false alarms, so their numbers must be there.

    Args:
        folder: Run folder.
        curves: Title -> curve.
        step: That they were measured at.
    """
    with SummaryWriter(str(folder), filename_suffix=".curves") as writer:
        for title, curve in curves.items():
            thresholds = np.linspace(0.0, 1.0, THRESHOLDS)
            passed = np.searchsorted(-curve.scores, -thresholds, side="right")  # detections kept
            precision = np.append(0.0, curve.precision)[passed]
            recall = np.append(0.0, curve.recall)[passed]
            hits = recall * curve.truths
            found = np.divide(hits, precision, out=np.zeros(THRESHOLDS), where=precision > 0)
            writer.add_pr_curve_raw(
                title,
                true_positive_counts=hits,
                false_positive_counts=found - hits,
                true_negative_counts=np.zeros(THRESHOLDS),  # detection has none
                false_negative_counts=curve.truths - hits,
                precision=precision,
                recall=recall,
                global_step=step,
                num_thresholds=THRESHOLDS,
            )


def write_hparams(
    folder: Path, config: Mapping[str, Any], metrics: Mapping[str, float | None]
) -> None:
    """Let the HPARAMS tab compare this run with others.

    What TensorBoard's own ``add_hparams`` writes besides, a list of all keys, is left out: the tab
    would take that of one run for all runs. Without it the keys in which runs differ come first.
    The subfolder keeps the curves of training out of the tab's columns.

    Args:
        folder: Run folder; ``final`` is made in it.
        config: Plain values.
        metrics: Final ones; those without meaning (None) are left out.
    """
    values = dict(_scalars({key: config[key] for key in HPARAMS if key in config}))
    final = {name: value for name, value in metrics.items() if value is not None}
    with SummaryWriter(str(folder / FINAL), filename_suffix=".hparams") as writer:
        _, start, end = hparams(values, final)  # type: ignore[no-untyped-call]
        for summary in (start, end):
            writer.file_writer.add_summary(summary)
        for name, value in final.items():
            writer.add_scalar(f"{FINAL}/{name}", value, 0)


def _scalars(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, dict):
            found += _scalars(value, f"{prefix}{name}.")
        elif isinstance(value, bool | int | float | str):
            found.append((f"{prefix}{name}", value))
    return found

"""What TensorBoard shows besides the curves: texts, precision-recall curves, hyperparameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

THRESHOLDS = 101
"""Points of a precision-recall curve, at recalls 0, 0.01, ..., 1."""
HPARAMS = ("solver", "model", "augment", "radiometry", "usecase", "seed")
"""Groups whose scalar keys the HPARAMS tab compares."""


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Show texts, such as the config, in a monospaced block each."""
    with SummaryWriter(str(folder), filename_suffix=".texts") as writer:
        for title, text in texts.items():
            indented = "\n".join(f"    {line}" for line in text.splitlines())  # Markdown for code
            writer.add_text(title, indented, 0)


def write_curves(
    folder: Path,
    curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    *,
    step: int,
) -> None:
    """Show precision over recall.

    Args:
        folder: Run folder.
        curves: Title -> precision and recall, both (N,), recall rising.
        step: That they were measured at.
    """
    with SummaryWriter(str(folder), filename_suffix=".curves") as writer:
        for title, (precision, recall) in curves.items():
            recalls = np.linspace(1.0, 0.0, THRESHOLDS)  # TensorBoard wants rising thresholds
            at = np.searchsorted(recall, recalls)
            precisions = np.append(precision, 0.0)[at]
            nothing = np.zeros(THRESHOLDS)
            writer.add_pr_curve_raw(
                title,
                true_positive_counts=nothing,
                false_positive_counts=nothing,
                true_negative_counts=nothing,
                false_negative_counts=nothing,
                precision=precisions,
                recall=recalls,
                global_step=step,
                num_thresholds=THRESHOLDS,
            )


def write_hparams(
    folder: Path, config: Mapping[str, Any], metrics: Mapping[str, float | None]
) -> None:
    """Let the HPARAMS tab compare this run with others.

    Args:
        folder: Run folder.
        config: Plain values.
        metrics: Final ones; those without meaning (None) are left out.
    """
    values = dict(_scalars({key: config[key] for key in HPARAMS if key in config}))
    final = {f"final/{name}": value for name, value in metrics.items() if value is not None}
    with SummaryWriter(str(folder), filename_suffix=".hparams") as writer:
        # run_name "." keeps it in this folder; the default is a folder named by the time.
        writer.add_hparams(values, final, run_name=".")


def _scalars(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, dict):
            found += _scalars(value, f"{prefix}{name}.")
        elif isinstance(value, bool | int | float | str):
            found.append((f"{prefix}{name}", value))
    return found

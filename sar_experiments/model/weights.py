"""Load weights, adapt the stem to N channels, save checkpoints whole or not at all."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from detectron2.utils.file_io import PathManager

from sar_experiments.errors import CheckpointError
from sar_experiments.model.build import zoo_url
from sar_experiments.model.state import Fit, fit, state_of
from sar_experiments.model.weights_file import read_weights_file
from sar_experiments.run_folder import resolve_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)

ABOUT = "sar_experiments"
"""Key under which a checkpoint carries what it was made from: config, classes, step."""

FETCH_TIMEOUT_S = 20.0
"""Of silence from the model zoo; not of the whole transfer."""


class Checkpointer:
    """Saves a model atomically, with who it is.

    Detectron2's own writes straight onto the final name: killed while saving, it leaves neither the
    old checkpoint nor the new one. And it reads pickles, so that a file can run code.

    Args:
        model: Taken out of its wrapper where it is trained data-parallel.
        folder: Where checkpoints are written.
        about: What every checkpoint says of itself.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        folder: Path | str = "",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.model: torch.nn.Module = getattr(model, "module", model)
        self.save_dir = str(folder)
        self.about = dict(about or {})

    def save_whole(self, name: str, *, state: Mapping[str, Any] | None = None, step: int) -> Path:
        """Write ``name``: the model, who it is, and with ``state`` what a resume needs."""
        path = Path(self.save_dir) / name
        content = {"model": self.model.state_dict(), ABOUT: {**self.about, "step": step}}
        if state is not None:
            content["trainer"] = dict(state)
        unfinished = path.with_name(f".{name}.part")
        try:
            with unfinished.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except RuntimeError as error:  # PyTorch's "enforce fail", behind which a full disk hides
            if isinstance(error.__context__, OSError):
                raise OSError(error.__context__.errno, error.__context__.strerror, path) from error
            raise
        finally:  # on a full disk it would take the room that result.json needs
            unfinished.unlink(missing_ok=True)
        return path


def load_pretrained(model: torch.nn.Module, weights: str, *, base: str | None) -> str:
    """Load what training starts from and describe it in one phrase.

    The backbone must fit. Feature pyramid and heads start anew where they do not, as those of
    other classes, anchors or families do.

    Args:
        model: Filled in place; as it was if the weights are refused.
        weights: ``none``, ``zoo``, a checkpoint or a run folder.
        base: Zoo config that ``zoo`` belongs to.

    Raises:
        CheckpointError: Unreachable, unreadable, or the backbone does not fit.
    """
    path = fetch_pretrained(weights, base=base)
    if path is None:
        return "random weights"
    content = read_weights_file(path)
    found = fit(state_of(content, path), model)
    if found.backbone or not found.tensors:
        raise CheckpointError(_misfit(weights, found, content))
    _fill(model, found)
    pyramid = [name for name in found.missing if name.startswith("backbone.")]
    if pyramid:
        logger.warning("of the feature pyramid start anew: %s", _some(found.missing, pyramid))
    return f"weights of {path}, {_described(found)}"


def fetch_pretrained(weights: str, *, base: str | None) -> Path | None:
    """Return the file that training starts from, fetched if need be; None for random weights.

    Raises:
        CheckpointError: The model zoo cannot be reached, or the path holds no checkpoint.
    """
    if weights == "none":
        return None
    return _fetch_from_zoo(base) if weights == "zoo" else resolve_weights(Path(weights))


def load_exactly(model: torch.nn.Module, path: Path) -> None:
    """Load a checkpoint of this very model.

    Raises:
        CheckpointError: Unreadable, or any tensor is missing or of another shape.
    """
    found = fit(state_of(read_weights_file(path), path), model)
    if found.missing or found.backbone:
        differing = {**found.missing, **found.backbone}
        msg = f"weights={path} does not fit the model: {_some(differing)}"
        raise CheckpointError(msg)
    _fill(model, found)


@dataclass(frozen=True)
class About:
    """Who a checkpoint is.

    Attributes:
        config: The run's config as plain values.
        classes: Class names in the order of the network's outputs.
        step: Steps that were trained.
        chip_px: Shortest edge of the training images, the median in pixels of the files; None
            where the checkpoint does not say.
        thresholds: Scores from which detections of each class count, as plain values; None where
            the checkpoint does not say.
        lengths_px: How many training objects are so long, see ``lengths_of``; None likewise.
    """

    config: Mapping[str, Any]
    classes: tuple[str, ...]
    step: int
    chip_px: int | None = None
    thresholds: Mapping[str, Any] | None = None
    lengths_px: Sequence[Sequence[int]] | None = None


def read_about(path: Path) -> About:
    """Read who a checkpoint is, without building the model.

    Raises:
        CheckpointError: Not a checkpoint of this package.
    """
    about = find_about(path)
    if about is None:
        msg = f"{path} does not say which run it is from; only checkpoints of this package do"
        raise CheckpointError(msg)
    return about


def find_about(path: Path) -> About | None:
    """Read who a checkpoint is; None for one of another package.

    Raises:
        CheckpointError: Not a checkpoint, or what it says of itself cannot be understood.
    """
    about = read_weights_file(path, as_map=True).get(ABOUT)
    if about is None:
        return None
    try:
        return About(
            dict(about["config"]),
            tuple(str(each) for each in about["classes"]),
            int(about["step"]),
            about.get("chip_px"),
            about.get("thresholds"),
            about.get("lengths_px"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{path}: what it says of its run cannot be understood ({error!r})"
        raise CheckpointError(msg) from error


def _fetch_from_zoo(base: str | None) -> Path:
    url = zoo_url(base)
    before_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(FETCH_TIMEOUT_S)  # or a network that swallows packets hangs for ever
    try:
        path = Path(PathManager.get_local_path(url))
    except (OSError, HTTPException) as error:
        msg = (
            f"model.weights=zoo: {url} cannot be fetched ({error}). Fetch it where there is a"
            " network and set model.weights=/path/to/the/file.pkl, or train from random weights"
            " with model.weights=none"
        )
        raise CheckpointError(msg) from error
    finally:
        socket.setdefaulttimeout(before_s)
    return path


def _fill(model: torch.nn.Module, found: Fit) -> None:
    model.load_state_dict(found.tensors, strict=False)


def _described(found: Fit) -> str:
    count, total = len(found.tensors), len(found.tensors) + len(found.missing)
    phrase = f"{count} of {total} tensors"
    if found.missing:
        phrase += f"; these start anew: {_some(found.missing)}"
    return phrase + (f"; {found.unused} of the file are not used" if found.unused else "")


def _misfit(weights: str, found: Fit, content: Mapping[str, Any]) -> str:
    """Say which tensors of the backbone do not fit, and what to set."""
    if not found.backbone:
        return f"model.weights={weights} does not fit: it holds no tensor of this model"
    msg = (
        f"model.weights={weights} does not fit the model: of the backbone differ"
        f" {_some(found.backbone)}"
    )
    if all(".norm." in name for name in found.backbone):
        return (
            f"{msg}; set d2.MODEL.RESNETS.NORM to the norms that the weights have: BN or FrozenBN"
            " where the file has a running_mean, else GN"
        )
    try:
        return f"{msg}; they are of model={content[ABOUT]['config']['model']['name']}"
    except (TypeError, KeyError):
        return f"{msg}; choose the model that they are of"


def _some(phrases: Mapping[str, str], names: Sequence[str] | None = None, limit: int = 3) -> str:
    names = list(phrases) if names is None else names
    shown = ", ".join(f"{name} ({phrases[name]})" for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")

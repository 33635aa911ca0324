"""Load weights, adapt the stem to N channels, save checkpoints whole or not at all."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import zipfile
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from sar_experiments.errors import CheckpointError
from sar_experiments.model.build import zoo_url
from sar_experiments.run_folder import resolve_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

ABOUT = "sar_experiments"
"""Key under which a checkpoint carries what it was made from: config, classes, step."""

FETCH_TIMEOUT_S = 20.0
"""Of silence from the model zoo; not of the whole transfer."""

# The layers whose shape follows from the classes and anchors: new ones start from random weights.
HEADS = (
    "box_predictor",
    "cls_score",
    "bbox_pred",
    "objectness_logits",
    "anchor_deltas",
    "predictor",
)


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, with atomic files and a stem for any number of channels.

    Detectron2 writes straight onto the final name: killed while saving, it leaves neither the old
    checkpoint nor the new one.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        folder: Path | str = "",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model, str(folder))
        self.about = dict(about or {})
        self.mismatched: list[str] = []

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

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:  # noqa: ANN401 - fvcore's tuple
        self._convert_ndarray_to_tensor(checkpoint["model"])
        adapt_stem(checkpoint["model"], self.model.state_dict())
        incompatible = super()._load_model(checkpoint)
        self.mismatched = [*incompatible.missing_keys]
        self.mismatched += [key for key, *_ in incompatible.incorrect_shapes]
        return incompatible


def load_pretrained(model: torch.nn.Module, weights: str, *, base: str | None) -> str:
    """Load what training starts from and describe it in one phrase.

    Args:
        model: Filled in place.
        weights: ``none``, ``zoo``, a checkpoint or a run folder.
        base: Zoo config that ``zoo`` belongs to.

    Raises:
        CheckpointError: Unreachable, unreadable, or more than the heads does not fit.
    """
    source = fetch_pretrained(weights, base=base)
    if source is None:
        return "random weights"
    checkpointer = Checkpointer(model)
    _load(checkpointer, source)
    misfits = [key for key in checkpointer.mismatched if not any(head in key for head in HEADS)]
    if misfits:
        msg = f"model.weights={weights} does not fit the model: {_some(misfits)}"
        raise CheckpointError(msg)
    fresh = len(checkpointer.mismatched)
    return f"weights of {source}" + (f", {fresh} tensors of the heads start anew" if fresh else "")


def fetch_pretrained(weights: str, *, base: str | None) -> str | None:
    """Return the file that training starts from, fetched if need be; None for random weights.

    Raises:
        CheckpointError: The model zoo cannot be reached, or the path holds no checkpoint.
    """
    if weights == "none":
        return None
    return _fetch_from_zoo(base) if weights == "zoo" else str(resolve_weights(Path(weights)))


def load_exactly(model: torch.nn.Module, path: Path) -> None:
    """Load a checkpoint of this very model.

    Raises:
        CheckpointError: Unreadable, or any tensor is missing or of another shape.
    """
    checkpointer = Checkpointer(model)
    _load(checkpointer, str(path))
    if checkpointer.mismatched:
        msg = f"weights={path} does not fit the model: {_some(checkpointer.mismatched)}"
        raise CheckpointError(msg)


@dataclass(frozen=True)
class About:
    """Who a checkpoint is.

    Attributes:
        config: The run's config as plain values.
        classes: Class names in the order of the network's outputs.
        step: Steps that were trained.
        chip_px: Shortest edge of the training images, the median in pixels of the files; None
            where the checkpoint does not say.
    """

    config: Mapping[str, Any]
    classes: tuple[str, ...]
    step: int
    chip_px: int | None = None


def read_about(path: Path) -> About:
    """Read who a checkpoint is, without building the model.

    Raises:
        CheckpointError: Not a checkpoint of this package.
    """
    content = read_checkpoint(path)
    if ABOUT not in content:
        msg = f"{path} does not say which run it is from; only checkpoints of this package do"
        raise CheckpointError(msg)
    about = content[ABOUT]
    return About(about["config"], tuple(about["classes"]), int(about["step"]), about.get("chip_px"))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint file onto the CPU; only tensors and plain values are unpickled.

    Raises:
        CheckpointError: Missing, truncated or not a checkpoint.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        msg = f"checkpoint {path} is missing"
        raise CheckpointError(msg) from error
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, dict):
        msg = f"{path} holds a {type(content).__name__}, a checkpoint holds a dict"
        raise CheckpointError(msg)
    return content


def adapt_stem(source: dict[str, Any], target: Mapping[str, torch.Tensor]) -> None:
    """Change the first convolution's weights in ``source`` to the channels of the target.

    Three channels fed with one gray image equal their sum fed with that image once, so C channels
    get the mean over the stored ones, scaled to keep the sum: nothing learnt is dropped.

    Args:
        source: State dict, changed in place; the stem's weight is (K, C_stored, h, w).
        target: State dict of the model; the stem's weight is (K, C, h, w).
    """
    for key in _stem_keys(target):
        stored, wanted = source.get(key), target[key].shape
        if stored is None or stored.shape == wanted or stored.dim() != len(wanted):
            continue
        if (stored.shape[0], *stored.shape[2:]) != (wanted[0], *wanted[2:]):
            continue
        mean = stored.sum(dim=1, keepdim=True) / wanted[1]
        source[key] = mean.expand(wanted).clone()
        logger.info("stem: %d channels of the weights adapted to %d", stored.shape[1], wanted[1])


def _stem_keys(state: Mapping[str, torch.Tensor]) -> list[str]:
    return [key for key in state if key.endswith(("stem.conv1.weight", "patch_embed.proj.weight"))]


def _fetch_from_zoo(base: str | None) -> str:
    url = zoo_url(base)
    before_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(FETCH_TIMEOUT_S)  # or a network that swallows packets hangs for ever
    try:
        path: str = DetectionCheckpointer(torch.nn.Identity()).path_manager.get_local_path(url)
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


def _load(checkpointer: Checkpointer, source: str) -> None:
    try:
        checkpointer.load(source, checkpointables=[])
    except (RuntimeError, OSError, EOFError, ValueError, AssertionError, KeyError) as error:
        raise _unreadable(source, error) from error
    except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise _unreadable(source, error) from error


def _unreadable(source: Path | str, error: Exception) -> CheckpointError:
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, pickle.UnpicklingError):  # PyTorch advises to run what is in the file
        why = "no PyTorch file, or one of more than tensors and plain values, which is never run"
    return CheckpointError(f"{source} cannot be read as a checkpoint: {why}")


def _some(keys: list[str], limit: int = 3) -> str:
    shown = ", ".join(keys[:limit])
    return shown + (f" and {len(keys) - limit} more" if len(keys) > limit else "")

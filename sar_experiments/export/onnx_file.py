"""FRONT DOOR export_onnx(): a Detectron2 model -> one ONNX file for images of any size."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import warnings
from typing import TYPE_CHECKING, Any

import torch

from sar_experiments.errors import CheckpointError, HardwareError
from sar_experiments.export.session import INPUT, METADATA_KEY, OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sar_experiments.export.session import OnnxAbout

logger = logging.getLogger(__name__)

OPSET = 17  # 16 brought RoiAlign's half-pixel shift; ONNX Runtime 1.23 knows up to 23

# Traced with sides of their own, so that no number of one can stand for the other.
_EXAMPLE_SIZE = (256, 320)


class BoxesOfOneImage(torch.nn.Module):
    """A Detectron2 model as a function of one image, in tensors alone.

    Args:
        model: In evaluation mode.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return boxes (N, 4), scores (N,) and classes (N,) of an image (C, H, W) in [0, 1]."""
        (output,) = self.model([{"image": image}])
        found = output["instances"]
        return found.pred_boxes.tensor, found.scores, found.pred_classes


def export_onnx(model: torch.nn.Module, path: Path, about: OnnxAbout, *, channels: int) -> None:
    """Write a model as ONNX; height and width of its input are free.

    By PyTorch's tracing exporter: Detectron2's own code knows it, and numbers of boxes that depend
    on the data stay free. The newer exporter goes through torch.export, which refuses to branch on
    such numbers (torch 2.14, ``model=tiny``).

    Args:
        model: On the CPU; its mode is put back. Outlines of Mask R-CNN are left out.
        path: Replaced whole or not at all.
        about: Goes into the file's metadata.
        channels: Of the images.

    Raises:
        HardwareError: The packages of the extra ``export`` are missing.
        CheckpointError: This family of models cannot be exported; says why.
    """
    onnx = _onnx()
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    example = torch.rand((channels, *_EXAMPLE_SIZE))
    try:
        with _evaluation_mode(model), _without_masks(model), torch.no_grad(), _quiet():
            torch.onnx.export(
                BoxesOfOneImage(model).eval(),
                (example,),
                str(unfinished),
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_axes={
                    INPUT: {1: "height", 2: "width"},
                    **{name: {0: "detections"} for name in OUTPUTS},
                },
            )
        content = onnx.load(str(unfinished))
        content.metadata_props.add(key=METADATA_KEY, value=about.to_json())
        onnx.save(content, str(unfinished))
        unfinished.replace(path)
    except (RuntimeError, NotImplementedError, TypeError, AttributeError, AssertionError) as error:
        raise _refusal(model, error) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _onnx() -> Any:  # noqa: ANN401 - a module
    try:
        importlib.import_module("onnxruntime")
        return importlib.import_module("onnx")
    except ImportError as error:
        msg = (
            f"task=export needs the package {error.name}, which is not installed:"
            " pip install 'sar-experiments[export]'"
        )
        raise HardwareError(msg) from error


def _refusal(model: torch.nn.Module, error: Exception) -> CheckpointError:
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    family = type(model).__name__
    parts = [
        type(getattr(model, name)).__name__
        for name in ("backbone", "roi_heads")
        if hasattr(model, name)
    ]
    named = f"{family} ({', '.join(parts)})" if parts else family
    msg = (
        f"{named} cannot be exported to ONNX: {reason}. Faster, Cascade and Mask R-CNN, RetinaNet"
        " and tiny can; predict with runtime=torch"
    )
    return CheckpointError(msg)


@contextlib.contextmanager
def _evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextlib.contextmanager
def _without_masks(model: torch.nn.Module) -> Iterator[None]:
    """Let Mask R-CNN find boxes alone: no output of ours holds outlines."""
    heads: Any = getattr(model, "roi_heads", None)
    has_masks = getattr(heads, "mask_on", False)
    if has_masks:
        heads.mask_on = False
    try:
        yield
    finally:
        if has_masks:
            heads.mask_on = True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out that the tracing exporter is the older one, and what tracing cannot follow.

    What it cannot follow shows in the comparison with the live model, on images of other sizes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

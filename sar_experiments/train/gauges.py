"""What is shown of a step besides its losses: clipped gradients, the GPU, the images it saw."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from detectron2.engine import HookBase

from sar_experiments.data.drawing import class_colour, draw_box, fitted, visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sar_experiments.data.drawing import Picture

LONGEST_SIDE_PX = 512
_BYTES_PER_GB = 1e9


class ClippedGradient(HookBase):
    """Record the gradients' common norm as the optimiser used it, after clipping.

    Detectron2 clips inside ``optimizer.step``, in place, so the gradients of a finished step are
    the clipped ones. The norm before clipping is the guard's ``grad_norm``.
    """

    def __init__(self, model: torch.nn.Module, *, period: int) -> None:
        self._model = model
        self._period = period

    def after_step(self) -> None:
        """Record it where a line of metrics is due; each record waits for the GPU once."""
        if not _is_due(self.trainer, self._period):
            return
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if torch.isfinite(norm):  # fp16's scaler skips a step whose gradients overflowed
            self.trainer.storage.put_scalar("grad_norm_clipped", float(norm))


class GpuUse(HookBase):
    """Record memory and utilisation of the run's GPU."""

    def __init__(self, *, period: int) -> None:
        self._period = period
        self._probe: UtilisationProbe | None = None

    def before_train(self) -> None:
        """Find out which GPU it is."""
        device = torch.cuda.current_device()
        uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
        self._probe = None if uuid is None else UtilisationProbe(f"GPU-{uuid}")

    def after_step(self) -> None:
        """Record where a line of metrics is due."""
        if not _is_due(self.trainer, self._period):
            return
        storage = self.trainer.storage
        storage.put_scalar("gpu/peak_memory_gb", torch.cuda.max_memory_allocated() / _BYTES_PER_GB)
        storage.put_scalar("gpu/reserved_gb", torch.cuda.memory_reserved() / _BYTES_PER_GB)
        utilisation = self._probe.latest() if self._probe is not None else None
        if utilisation is not None:
            storage.put_scalar("gpu/utilisation", utilisation)

    def after_train(self) -> None:
        """End a question that is still open."""
        if self._probe is not None:
            self._probe.close()


class UtilisationProbe:
    """Asks nvidia-smi how busy a GPU is, without waiting for the answer.

    The answer takes 50 ms and more, as long as a training step; so each call returns the answer
    to the question of an earlier call and asks anew.
    """

    def __init__(self, gpu: str) -> None:
        """Ask about a GPU.

        Args:
            gpu: UUID or index.
        """
        self._command = ["nvidia-smi", "-i", gpu, "--query-gpu=utilization.gpu"]
        self._command += ["--format=csv,noheader,nounits"]
        self._question: subprocess.Popen[str] | None = None
        self._is_there = shutil.which("nvidia-smi") is not None

    def latest(self) -> float | None:
        """Return the share of time in [0, 1] that the GPU was busy; None while unknown."""
        answer = None
        if self._question is not None:
            if self._question.poll() is None:
                return None
            text, _ = self._question.communicate()
            with contextlib.suppress(ValueError):  # "[N/A]", as on a part of a GPU
                answer = float(text.strip()) / 100
            self._question = None
        if self._is_there:
            self._question = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        return answer

    def close(self) -> None:
        """Ask no more."""
        if self._question is not None:
            self._question.kill()
            self._question.communicate()
            self._question = None


class InputPictures(HookBase):
    """Show the images of a step as the model got them, augmented, with their boxes.

    At the first step, and whenever an evaluation is due.
    """

    def __init__(self, model: torch.nn.Module, *, period: int, count: int) -> None:
        """Show inputs.

        Args:
            model: The one the trainer calls.
            period: Steps between pictures; 0 shows those of the first step alone.
            count: Images shown; at most those of a step.
        """
        self._model = model
        self._period = period
        self._count = count
        self._batch: Sequence[Mapping[str, Any]] = ()
        self._is_first = True

    def before_train(self) -> None:
        """Start to remember what goes into the model."""
        self._handle = self._model.register_forward_pre_hook(self._remember)

    def after_train(self) -> None:
        """Forget, also after a failure."""
        self._handle.remove()
        self._batch = ()

    def after_step(self) -> None:
        """Show the images of this step where it is due."""
        if self._is_first or (self._period > 0 and _is_due(self.trainer, self._period)):
            for number, record in enumerate(self._batch[: self._count]):
                title = f"train/input {number}"
                self.trainer.storage.put_image(title, input_picture(record).transpose(2, 0, 1))
        self._is_first = False

    def _remember(self, model: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if model.training:
            self._batch = inputs[0]


def input_picture(record: Mapping[str, Any]) -> Picture:
    """Draw one model input: its image, (C, H, W) in [0, 1], and its boxes."""
    image = record["image"].permute(1, 2, 0).cpu().numpy()
    picture, scale = fitted(visible(image), LONGEST_SIDE_PX)
    instances = record["instances"]
    boxes, kinds = instances.gt_boxes.tensor.tolist(), instances.gt_classes.tolist()
    for box, kind in zip(boxes, kinds, strict=True):
        draw_box(picture, box, class_colour(kind), scale=scale)
    file = Path(record["file_name"]).name
    draw_box(picture, (0, 0, 0, 0), (255, 255, 255), label=file)
    return picture


def _is_due(trainer: Any, period: int) -> bool:  # noqa: ANN401 - Detectron2's
    done = int(trainer.iter) + 1
    return done % period == 0 or done == trainer.max_iter

"""A step whose batch is computed in parts, where the GPU's memory holds no whole one."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import torch
from detectron2.engine import AMPTrainer, SimpleTrainer

if TYPE_CHECKING:
    from collections.abc import Iterable


class PartsTrainer(SimpleTrainer):
    """Detectron2's trainer, with the gradients of several forward passes added up per step.

    The loader, the learning rate and every hook see whole steps. Detectron2's losses are means
    over images or over sampled boxes: with as many samples in each image, the sum of the parts'
    scaled gradients is the gradient of the batch, up to the order of random draws and
    to RetinaNet's running normaliser; but not with batch norm, which sees each part for itself.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        *,
        parts: int,
    ) -> None:
        """Train.

        Args:
            model: In training mode.
            data_loader: Whole batches.
            optimizer: Stepped once per batch.
            parts: Divides the images of a batch.
        """
        super().__init__(model, data_loader, optimizer)
        self._parts = parts

    def run_step(self) -> None:
        """Do one step."""
        losses, data_time_s = _backward_in_parts(self, self._parts)
        self.after_backward()
        self._write_metrics(losses, data_time_s)
        self.optimizer.step()


class AmpPartsTrainer(AMPTrainer):
    """The same with a forward pass in fewer bits, on CUDA."""

    def __init__(
        self,
        model: torch.nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        *,
        parts: int,
        precision: torch.dtype,
        grad_scaler: torch.amp.GradScaler,
    ) -> None:
        """Train; see PartsTrainer."""
        super().__init__(
            model, data_loader, optimizer, precision=precision, grad_scaler=grad_scaler
        )
        self._parts = parts

    def run_step(self) -> None:
        """Do one step."""
        losses, data_time_s = _backward_in_parts(
            self, self._parts, autocast=self.precision, scaler=self.grad_scaler
        )
        self.after_backward()
        self._write_metrics(losses, data_time_s)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()


def _backward_in_parts(
    trainer: SimpleTrainer,
    parts: int,
    *,
    autocast: torch.dtype | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> tuple[dict[str, torch.Tensor], float]:
    """Add up the gradients of a batch; return its mean losses and the seconds it was waited for."""
    began_s = time.perf_counter()
    batch = next(trainer._data_loader_iter)
    data_time_s = time.perf_counter() - began_s
    trainer.optimizer.zero_grad()
    means: dict[str, torch.Tensor] = {}
    size = len(batch) // parts
    for start in range(0, len(batch), size):
        is_last = start + size >= len(batch)
        with _unsynchronised(trainer.model, enabled=not is_last):
            with torch.autocast("cuda", dtype=autocast, enabled=autocast is not None):
                losses = trainer.model(batch[start : start + size])
            total = sum(losses.values()) / parts
            (total if scaler is None else scaler.scale(total)).backward()
        for name, loss in losses.items():
            means[name] = means.get(name, 0) + loss.detach() / parts
    return means, data_time_s


def _unsynchronised(
    model: torch.nn.Module, *, enabled: bool
) -> contextlib.AbstractContextManager[Any]:
    """Keep data-parallel ranks from exchanging gradients that are not complete yet."""
    no_sync = getattr(model, "no_sync", None)
    return no_sync() if enabled and no_sync is not None else contextlib.nullcontext()

"""Divergence: notice it before the weights are spoilt, explain it, stop."""

from __future__ import annotations

import math
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from sar_experiments import ranks
from sar_experiments.errors import DivergedError

ADVICE = (
    "Try a lower solver.base_lr (a tenth), a longer solver.warmup_iters,"
    " solver.clip_gradients.enabled=true, or task=check for broken images and boxes"
)

MIN_LOSS_SCALE = 1e-4
"""Of fp16; healthy training stays far above 1."""

_GRADIENT = "the gradient is not finite"


class DivergenceGuard(HookBase):
    """Stop at the first loss or gradient that is not finite or far too large, before it is used.

    Clipped gradients keep an exploded loss finite for a long time: at a learning rate of 1000 it
    stays at 1e15 for hundreds of steps. So a bound on the total loss is part of the check.

    Detectron2 looks at the loss alone, not at gradients, and with asynchronous or periodic metric
    gathering it looks too late. This hook looks at both in every step, between ``backward`` and
    ``step``; on CUDA that is one synchronisation, which the gathering of metrics needs anyway.
    Where several GPUs share the step, all stop if one of them has reason to.
    """

    def __init__(
        self, model: torch.nn.Module, *, max_loss: float, clip_full_norm: float | None
    ) -> None:
        """Watch a model.

        Args:
            model: The one the trainer calls; with data parallelism, the wrapped one.
            max_loss: Total loss above which training counts as diverged.
            clip_full_norm: Scale all gradients down to this common norm; None leaves them.
        """
        self._model = model
        self._max_loss = max_loss
        self._clip_full_norm = clip_full_norm
        self._is_step = False
        self._batch: list[dict[str, Any]] = []
        self._parts: list[dict[str, torch.Tensor]] = []

    def before_train(self) -> None:
        """Start to remember what goes into the model and what comes out."""
        self._handles = [
            self._model.register_forward_pre_hook(self._remember_batch),
            self._model.register_forward_hook(self._remember_losses),
        ]

    def after_train(self) -> None:
        """Forget, also after a failure."""
        for handle in self._handles:
            handle.remove()

    def before_step(self) -> None:
        """Forget the last step."""
        self._is_step, self._batch, self._parts = True, [], []

    def after_backward(self) -> None:
        """Check this step's losses and gradients.

        Raises:
            DivergedError: One of them is not finite, or the total loss is above the bound.
        """
        self._is_step = False
        scaler = getattr(self.trainer, "grad_scaler", None)
        if scaler is not None and scaler.is_enabled():
            scaler.unscale_(self.trainer.optimizer)
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        losses = torch.stack([loss.detach().float() for loss in self._losses().values()])
        suspects = (
            losses
            if _may_overflow(scaler)
            else torch.cat([losses, norm.detach().reshape(1).to(losses)])
        )
        is_sound = bool(torch.isfinite(suspects).all() & (losses.sum() <= self._max_loss))
        if ranks.any_of(not is_sound):
            raise self._diverged_somewhere(losses)
        if self._clip_full_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(
                self._model.parameters(), self._clip_full_norm, norm
            )
        self.trainer.storage.put_scalar("grad_norm", float(norm))

    def diverged(self, what: str) -> DivergedError:
        """Return the error that says what is known of this step.

        Args:
            what: What is wrong, such as "the gradient is not finite".
        """
        losses = {name: float(loss.detach()) for name, loss in self._losses().items()}
        files = [str(record.get("file_name", "")) for record in self._batch]
        return self._error(what, losses, files)

    def _error(self, what: str, losses: dict[str, float], files: list[str]) -> DivergedError:
        parts = ", ".join(f"{name}={value:.4g}" for name, value in losses.items()) or "no loss yet"
        sentence = (
            f"{what} at step {self.trainer.iter}: {parts}. {ADVICE}."
            f" Images of that batch: {', '.join(files)}"
        )
        return DivergedError(sentence, step=int(self.trainer.iter), losses=losses, files=files)

    def _diverged_somewhere(self, losses: torch.Tensor) -> DivergedError:
        """Return the same error on all ranks: of the first whose own loss is to blame.

        A gradient is the mean over all ranks, so that one bad loss spoils it everywhere.
        """
        what = self._what(losses)
        own = self.diverged(what)
        is_to_blame = what != _GRADIENT
        found = comm.all_gather((is_to_blame, what, own.losses, own.files))
        _, what, parts, files = next((each for each in found if each[0]), found[0])
        return self._error(what, parts, files)

    def _what(self, losses: torch.Tensor) -> str:
        broken = [
            name
            for name, loss in zip(self._losses(), losses.tolist(), strict=True)
            if not math.isfinite(loss)
        ]
        if broken:
            return f"the loss ({', '.join(broken)}) is not finite"
        if float(losses.sum()) > self._max_loss:
            return f"the loss is above solver.max_loss={self._max_loss:g}"
        return _GRADIENT

    def _remember_batch(self, _model: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if self._is_step:
            self._batch += inputs[0]

    def _remember_losses(
        self, model: torch.nn.Module, _inputs: tuple[Any, ...], outputs: dict[str, torch.Tensor]
    ) -> None:
        if self._is_step and model.training:
            self._parts.append(outputs)

    def _losses(self) -> dict[str, torch.Tensor]:
        """Return the mean over the parts that the batch was computed in."""
        names = self._parts[0] if self._parts else {}
        return {
            name: torch.stack([part[name].detach() for part in self._parts]).mean()
            for name in names
        }


def _may_overflow(scaler: torch.amp.GradScaler | None) -> bool:
    """Tell whether a gradient that is not finite may be the loss scale's doing.

    fp16 overflows now and then by design: its scaler skips that step and scales down. Where it
    has scaled down to nearly nothing, the gradient itself is broken.
    """
    return scaler is not None and scaler.is_enabled() and scaler.get_scale() > MIN_LOSS_SCALE

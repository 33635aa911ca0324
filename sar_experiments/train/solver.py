"""Optimiser and learning rate schedule, from Detectron2's own builders."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.solver import build_lr_scheduler, get_default_optimizer_params
from detectron2.solver.build import build_optimizer, maybe_add_gradient_clipping

from sar_experiments.config import ClipKind, Optimizer, SolverConfig


def clip_full_norm(solver: SolverConfig) -> float | None:
    """Return the norm that all gradients together are scaled down to, if that kind is asked for.

    Detectron2 clips values and the norm of each tensor alone; this one is the guard's work.
    """
    clip = solver.clip_gradients
    return clip.value if clip.enabled and clip.kind is ClipKind.full_norm else None


def optimizer_and_scheduler(
    cfg: Any,  # noqa: ANN401 - yacs, opaque here
    model: torch.nn.Module,
    kind: Optimizer,
) -> tuple[torch.optim.Optimizer, Any]:
    """Build what updates the weights and what lowers the learning rate."""
    optimizer = build_optimizer(cfg, model) if kind is Optimizer.sgd else _adamw(cfg, model)
    return optimizer, build_lr_scheduler(cfg, optimizer)


def _adamw(cfg: Any, model: torch.nn.Module) -> torch.optim.Optimizer:  # noqa: ANN401 - yacs
    groups = get_default_optimizer_params(
        model,
        base_lr=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
    )
    optimizer: torch.optim.Optimizer = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)(groups)
    return optimizer

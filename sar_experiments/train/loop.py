"""FRONT DOOR train(): Detectron2's trainer with our loaders, our hooks in order, and resume."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from detectron2.engine import AMPTrainer, SimpleTrainer, hooks
from detectron2.utils import comm
from detectron2.utils.events import JSONWriter, TensorboardXWriter

from sar_experiments import run_folder
from sar_experiments.errors import CheckpointError
from sar_experiments.model.weights import ABOUT, Checkpointer, load_exactly
from sar_experiments.model.weights_file import read_weights_file
from sar_experiments.train.gauges import ClippedGradient, GpuUse, InputPictures
from sar_experiments.train.guard import DivergenceGuard
from sar_experiments.train.hooks import (
    Checkpoints,
    LossNormalizer,
    Progress,
    SeedEveryStep,
    StopOnRequest,
    StopTraining,
    Validation,
)
from sar_experiments.train.parts import AmpPartsTrainer, PartsTrainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sar_experiments.pruning import Pruning

logger = logging.getLogger(__name__)

Batch = list[dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """How long training lasts and what happens when, in steps.

    Attributes:
        max_iter: Steps in all.
        seed: Of the random draws inside the model.
        log_period: Between lines of metrics.jsonl.
        checkpoint_period: Between checkpoints to resume from.
        evaluation_period: Between evaluations; 0 evaluates at the end alone.
        metric: What the best checkpoint is chosen by.
        max_loss: Total loss above which training counts as diverged.
        patience: Evaluations without improvement before stopping; 0 never stops early.
        clip_full_norm: Common norm that all gradients are scaled down to, or None.
        pictures: Images of a step that are shown as the model got them.
        autocast: Type of the forward pass on CUDA, or None for float32.
        accumulate_steps: Parts that each batch is computed in.
        pruning: When to give up among the runs of a sweep, or None.
    """

    max_iter: int
    seed: int
    log_period: int
    checkpoint_period: int
    evaluation_period: int
    metric: str
    patience: int
    max_loss: float
    pictures: int
    clip_full_norm: float | None = None
    autocast: torch.dtype | None = None
    accumulate_steps: int = 1
    pruning: Pruning | None = None


@dataclass(frozen=True)
class Outcome:
    """How training ended.

    Attributes:
        steps: Optimiser steps of the whole run, those before a resume included.
        interrupted: A signal asked to stop; the run can be resumed.
        best: Best validation metric; None where val holds nothing to measure by.
        best_step: Step it was measured at.
        why_pruned: Why the run was given up; empty where it was not.
    """

    steps: int
    interrupted: bool
    best: float | None
    best_step: int
    why_pruned: str = ""


@dataclass(frozen=True)
class Learner:
    """What learns, as built for a run.

    Attributes:
        model: In training mode, on its device; wrapped where data-parallel.
        optimizer: Of its trainable parameters.
        scheduler: Of the learning rate, stepped once per step.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any


def train(
    learner: Learner,
    plan: Plan,
    *,
    loader: Callable[[int], Iterable[Batch]],
    evaluate: Callable[[torch.nn.Module], Mapping[str, float | None]],
    checkpointer: Checkpointer,
    is_interrupted: Callable[[], bool],
) -> Outcome:
    """Train until max_iter, early stop, interruption or divergence.

    Starts from the run folder's last checkpoint where there is one.

    Args:
        learner: Model, optimiser and schedule.
        plan: How long, and what happens when.
        loader: First step -> endless batches from that step on.
        evaluate: Model -> validation metrics; leaves the model in training mode.
        checkpointer: Bound to the run folder.
        is_interrupted: Asked after every step.

    Raises:
        DivergedError: A loss or gradient stopped being finite.
        CheckpointError: The last checkpoint is broken or is not of this model.
    """
    folder = Path(checkpointer.save_dir)
    resumed = _read_last_checkpoint(folder, checkpointer)
    start_step = int(resumed["iteration"]) + 1 if resumed is not None else 0
    if resumed is not None and comm.is_main_process():  # before a writer opens the file
        _drop_lines_after(folder / run_folder.METRICS, start_step)
    if plan.accumulate_steps > 1:
        _say_batch_norms(learner.model, plan.accumulate_steps)
    trainer = _trainer(learner, plan, loader(start_step))
    guard = DivergenceGuard(
        learner.model, max_loss=plan.max_loss, clip_full_norm=plan.clip_full_norm
    )
    validation = Validation(
        evaluate,
        checkpointer,
        period=plan.evaluation_period,
        metric=plan.metric,
        patience=plan.patience,
        pruning=plan.pruning,
    )
    checkpoints = Checkpoints(checkpointer, period=plan.checkpoint_period)
    stopper = StopOnRequest(is_interrupted, validation, checkpoints)
    trainer.register_hooks(
        [
            SeedEveryStep(plan.seed),
            hooks.IterationTimer(),
            guard,
            LossNormalizer(learner.model),
            hooks.LRScheduler(learner.optimizer, learner.scheduler),
            *_gauges(learner.model, plan),
            validation,  # before checkpoints: its best value belongs into them
            checkpoints,
            *_writers(folder, plan, start_step),
            stopper,
        ]
    )
    if resumed is not None:
        trainer.load_state_dict(with_loss_scale(resumed, trainer))
        _say_resumed(resumed, start_step, plan.max_iter)
    _run(trainer, guard, start_step=start_step, max_iter=plan.max_iter)
    if not stopper.interrupted:
        checkpoints.save_final()
    return Outcome(
        int(trainer.iter) + 1,
        stopper.interrupted,
        validation.best,
        validation.best_step,
        validation.why_pruned,
    )


def _trainer(learner: Learner, plan: Plan, loader: Iterable[Batch]) -> SimpleTrainer:
    learns = (learner.model, loader, learner.optimizer)
    if plan.autocast is None:
        whole = plan.accumulate_steps == 1
        return (
            SimpleTrainer(*learns) if whole else PartsTrainer(*learns, parts=plan.accumulate_steps)
        )
    # bf16 has the range of fp32: nothing to scale, and the guard sees true gradients.
    scaler = torch.amp.GradScaler("cuda", enabled=plan.autocast is torch.float16)
    if plan.accumulate_steps == 1:
        return AMPTrainer(*learns, precision=plan.autocast, grad_scaler=scaler)
    return AmpPartsTrainer(
        *learns, parts=plan.accumulate_steps, precision=plan.autocast, grad_scaler=scaler
    )


def _say_batch_norms(model: torch.nn.Module, parts: int) -> None:
    """Warn where a batch in parts is not the whole batch: batch norms see each part for itself."""
    norms = [
        each
        for each in model.modules()
        if isinstance(each, torch.nn.modules.batchnorm._BatchNorm) and each.training
    ]
    if norms and comm.is_main_process():
        logger.warning(
            "solver.accumulate_steps=%d is not the whole batch for the %d batch norms of this"
            " model, which take their statistics from each part; GN or FrozenBN make no difference"
            " between the two",
            parts, len(norms),
        )  # fmt: skip


def _gauges(model: torch.nn.Module, plan: Plan) -> list[Any]:
    if not comm.is_main_process():
        return []
    inputs = InputPictures(model, period=plan.evaluation_period, count=plan.pictures)
    gauges = [ClippedGradient(model, period=plan.log_period), inputs]
    on_cuda = any(parameter.is_cuda for parameter in model.parameters())
    return [*gauges, GpuUse(period=plan.log_period)] if on_cuda else gauges


def _writers(folder: Path, plan: Plan, start_step: int) -> list[Any]:
    if not comm.is_main_process():
        return []
    # What a killed process logged after the checkpoint will be done, and logged, again.
    purge = {"purge_step": start_step} if start_step else {}
    board = TensorboardXWriter(str(folder), **purge)
    files = [JSONWriter(str(folder / run_folder.METRICS)), board]
    progress = Progress(start_step=start_step, max_iter=plan.max_iter, metric=plan.metric)
    return [
        hooks.PeriodicWriter(files, period=plan.log_period),
        hooks.PeriodicWriter([progress], period=1),
    ]


def _run(trainer: SimpleTrainer, guard: DivergenceGuard, *, start_step: int, max_iter: int) -> None:
    """Train; afterwards ``trainer.iter`` is the last step that was done."""
    try:
        trainer.train(start_step, max_iter)
    except StopTraining:
        return
    except FloatingPointError as error:  # Detectron2's own check of predicted boxes
        raise guard.diverged("predicted boxes are not finite") from error
    trainer.iter = max_iter - 1  # Detectron2 leaves it one behind the last


def _read_last_checkpoint(folder: Path, checkpointer: Checkpointer) -> dict[str, Any] | None:
    """Load the run's last checkpoint into the model and return the trainer's state."""
    pointer = folder / run_folder.LAST_CHECKPOINT
    if not pointer.is_file():
        return None
    path = folder / pointer.read_text(encoding="utf-8").strip()
    content = read_weights_file(path)
    state = content.get("trainer")
    if state is None:
        msg = f"{path} holds no state to resume from; another output=DIR starts a new run"
        raise CheckpointError(msg)
    load_exactly(checkpointer.model, path)
    assert isinstance(state, dict)
    kept = content.get(ABOUT, {}).get("thresholds")  # until the next evaluation
    if kept is not None:
        checkpointer.about["thresholds"] = kept
    return state


def _say_resumed(state: Mapping[str, Any], start_step: int, max_iter: int) -> None:
    logger.info("resumed after step %d of %d", start_step, max_iter)
    before, now = state.get("processes", 1), comm.get_world_size()
    if before != now:
        logger.warning(
            "the checkpoint is of %d processes, now there are %d: each step still sees the same"
            " images, but the weights will not be the same to the last bit",
            before,
            now,
        )


def with_loss_scale(state: dict[str, Any], trainer: SimpleTrainer) -> dict[str, Any]:
    """Return the state with the loss scale that an AMP trainer asks for.

    A checkpoint of another precision, such as of the CPU, holds none: it starts anew.
    """
    scaler = getattr(trainer, "grad_scaler", None)
    if scaler is None or state.get("grad_scaler"):
        return state
    return {**state, "grad_scaler": scaler.state_dict()}


def _drop_lines_after(path: Path, step: int) -> None:
    """Remove lines of steps that are about to be done again."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if _step_of(line) < step]
    run_folder.write_atomically(path, "".join(kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line).get("iteration", 0))
    except ValueError:  # a line cut by a kill
        return float("inf")

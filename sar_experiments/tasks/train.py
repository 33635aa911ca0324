"""task=train: train, then evaluate the best checkpoint."""

from __future__ import annotations

import logging
import statistics
from typing import TYPE_CHECKING, Any

import torch
from detectron2.utils import comm

from sar_experiments import ranks, run_folder
from sar_experiments.config import (
    Config,
    Device,
    Prune,
    SolverConfig,
    to_plain,
    to_yaml,
)
from sar_experiments.data import parts as data_parts
from sar_experiments.data.loader import class_frequencies, repeat_factors, train_loader
from sar_experiments.data.object_lengths import lengths_of
from sar_experiments.exit_codes import DONE, INTERRUPTED
from sar_experiments.model import build, weights
from sar_experiments.pruning import Pruning, is_of_sweep
from sar_experiments.tasks.device import autocast_dtype
from sar_experiments.tasks.measuring import measure_parts, sar_mapper, validation
from sar_experiments.tasks.parts import CHECK_TABLE, load_parts, usable_parts, workers
from sar_experiments.tasks.pretrained import with_layout_of_weights
from sar_experiments.tasks.statistics import name_other_radiometry, with_statistics
from sar_experiments.train.board import write_hparams, write_texts
from sar_experiments.train.loop import Learner, Outcome, Plan, train
from sar_experiments.train.solver import clip_full_norm, optimizer_and_scheduler

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sar_experiments.data.annotations import Dataset
    from sar_experiments.tasks.interruption import Interruption
    from sar_experiments.thresholds import Thresholds

logger = logging.getLogger(__name__)


def run(config: Config, folder: Path, interruption: Interruption) -> int:
    """Train, then evaluate the best checkpoint."""
    # Before the data is looked over, which takes minutes where there is much of it.
    ranks.from_first(lambda: weights.fetch_pretrained(config.model.weights, base=config.model.base))
    config = ranks.from_first(lambda: with_layout_of_weights(config, folder))
    parts = ranks.from_first(lambda: usable_parts(config, load_parts(config, folder), folder))
    config = ranks.from_first(lambda: with_statistics(config, folder))
    spec = build.ModelSpec(config.model.base, config.d2, parts["train"].classes)
    cfg = build.detectron2_config(spec, device=config.hardware.device.name)
    cfg = build.with_shared_norms(cfg, comm.get_world_size())
    example = sar_mapper(config)(parts["val"].samples[0])
    learner, checkpointer = _learner(config, spec, cfg, folder, example=example)
    checkpointer.about["chip_px"] = chip_px(parts["train"])
    checkpointer.about["lengths_px"] = lengths_of(parts["train"])

    def keep(thresholds: Thresholds) -> None:
        checkpointer.about["thresholds"] = thresholds.to_plain()

    validate = validation(config, parts["val"], folder, interruption, on_thresholds=keep)
    loader = _training_loader(config, parts["train"], with_masks=build.has_masks(cfg))
    _say_plan(config, cfg)
    if comm.is_main_process():
        run_folder.write_atomically(folder / run_folder.DETECTRON2, cfg.dump())
        _write_texts(config, folder, checkpointer.model)
    interruption.can_wait = True
    outcome = train(
        learner,
        _plan(config, cfg, folder),
        loader=loader,
        evaluate=validate,
        checkpointer=checkpointer,
        is_interrupted=lambda: interruption.requested,
    )
    interruption.can_wait = False
    if ranks.any_of(outcome.interrupted or interruption.requested):
        why = (
            f"interrupted after step {outcome.steps} of {cfg.SOLVER.MAX_ITER};"
            f" {run_folder.how_to_go_on(folder)}"
        )
        if comm.is_main_process():
            run_folder.update_result(folder, status="interrupted", why=why)
        logger.info("%s", why)
        return INTERRUPTED
    if outcome.why_pruned:
        if comm.is_main_process():
            metrics = {config.evaluation.metric: outcome.best}
            run_folder.update_result(
                folder, status="pruned", why=outcome.why_pruned, metrics=metrics
            )
        return DONE
    return _evaluate_best(config, folder, learner.model, parts, outcome)


def _training_loader(
    config: Config, train_part: Dataset, *, with_masks: bool
) -> Callable[[int], Any]:
    """Return first step -> endless batches; all augmentation settings are checked here."""
    train_part = data_parts.to_learn_from(train_part, config.usecase)
    mapper = sar_mapper(config, training_set=train_part, with_masks=with_masks)
    factors = None
    if config.augment.repeat_threshold > 0:
        factors = repeat_factors(train_part.samples, config.augment.repeat_threshold)
        _say_frequencies(train_part, factors)
    return lambda start_step: train_loader(
        train_part.samples,
        mapper,
        ims_per_batch=config.solver.ims_per_batch,
        seed=config.seed,
        num_workers=workers(config),
        start_step=start_step,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
        repeat_factors=factors,
        pin_memory=config.hardware.device is Device.cuda,
    )


def _say_frequencies(train_part: Dataset, factors: list[float]) -> None:
    """Show what repeat factors change: the share of seen images that hold each class."""
    count = len(train_part.classes)
    shares = [class_frequencies(train_part.samples, each, count) for each in (None, factors)]
    width = max(5, *(len(name) for name in train_part.classes))
    per_epoch = f"{len(factors)} images, {sum(factors):.0f} seen per epoch"
    rows = [f"rare classes more often: {per_epoch}", f"{'class':<{width}}  in images  as seen"]
    rows += [
        f"{name:<{width}}  {before:>9.1%}  {after:>7.1%}"
        for name, before, after in zip(train_part.classes, *shares, strict=True)
    ]
    logger.info("%s", "\n".join(rows))


def _learner(
    config: Config,
    spec: build.ModelSpec,
    cfg: Any,  # noqa: ANN401 - yacs
    folder: Path,
    *,
    example: dict[str, Any],
) -> tuple[Learner, weights.Checkpointer]:
    torch.manual_seed(config.seed)
    model = build.build_model(cfg)
    start = weights.load_pretrained(model, config.model.weights, base=config.model.base)
    name_other_radiometry(config)
    summary = build.summary(model, example)
    logger.info("model: %s, %s, from %s", config.model.name, summary, start)
    optimizer, scheduler = optimizer_and_scheduler(cfg, model, config.solver.optimizer)
    about = {"config": to_plain(config), "classes": list(spec.classes)}
    checkpointer = weights.Checkpointer(model, folder, about)
    return Learner(build.shared_by_ranks(model), optimizer, scheduler), checkpointer


def chip_px(part: Dataset) -> int:
    """Return the median of the images' shortest edges, which sizes are relative to."""
    return int(statistics.median(min(each["height"], each["width"]) for each in part.samples))


def _write_texts(config: Config, folder: Path, model: torch.nn.Module) -> None:
    """Let TensorBoard show what the run is made from."""
    texts = {
        "config": to_yaml(config),
        "model": f"{build.parameter_table(model)}\n\n{model}",
        "data_check": (folder / CHECK_TABLE).read_text(encoding="utf-8"),
    }
    write_texts(folder, texts)


def _plan(config: Config, cfg: Any, folder: Path) -> Plan:  # noqa: ANN401 - yacs
    return Plan(
        max_iter=cfg.SOLVER.MAX_ITER,
        seed=config.seed,
        log_period=config.solver.log_period,
        checkpoint_period=cfg.SOLVER.CHECKPOINT_PERIOD,
        evaluation_period=config.solver.eval_period,
        metric=config.evaluation.metric,
        patience=config.solver.patience,
        max_loss=config.solver.max_loss,
        pictures=config.evaluation.pictures,
        clip_full_norm=clip_full_norm(config.solver),
        autocast=autocast_dtype(config),
        accumulate_steps=config.solver.accumulate_steps,
        pruning=pruning_of(config, folder),
    )


def pruning_of(config: Config, folder: Path) -> Pruning | None:
    """Return the rule by which a run of a sweep is given up; None for never."""
    sweep = config.sweep
    if sweep.prune is Prune.never:
        return None
    if not is_of_sweep(folder):
        if comm.is_main_process():
            logger.warning(
                "sweep.prune=%s has no effect: the run is none of a sweep", sweep.prune.name
            )
        return None
    return Pruning(folder, config.evaluation.metric, sweep.prune_min_runs, sweep.prune_min_step)


def _say_plan(config: Config, cfg: Any) -> None:  # noqa: ANN401 - yacs
    solver = config.solver
    clip = solver.clip_gradients
    count = comm.get_world_size()
    logger.info(
        "training: %d steps of %d images%s, %s, lr %s, clipping %s, seed %d, on %s",
        cfg.SOLVER.MAX_ITER,
        cfg.SOLVER.IMS_PER_BATCH,
        f" ({cfg.SOLVER.IMS_PER_BATCH // count} on each of {count} processes)" if count > 1 else "",
        solver.optimizer.name,
        _rate(solver, cfg.SOLVER.BASE_LR),
        f"by {clip.kind.name} {clip.value:g}" if clip.enabled else "off",
        config.seed,
        config.hardware.device.name,
    )


def _rate(solver: SolverConfig, rate: float) -> str:
    """Say the learning rate, and what it has to do with the batch."""
    reference, name = solver.reference_ims_per_batch, solver.schedule.name
    if reference is not None:
        product = f"{solver.base_lr:g} x {solver.ims_per_batch} images / {reference}"
        return f"{rate:g} ({name}) = {product}"
    unscaled = "; not scaled with the number of processes" if comm.get_world_size() > 1 else ""
    return f"{rate:g} ({name}{unscaled})"


def _evaluate_best(
    config: Config,
    folder: Path,
    model: torch.nn.Module,
    parts: dict[str, Dataset],
    outcome: Outcome,
) -> int:
    best = folder / run_folder.MODEL_BEST
    comm.synchronize()  # the first rank may still be writing it
    weights.load_exactly(model, best)
    logger.info(
        "best checkpoint: %s, step %d of %d, %s %s",
        best,
        outcome.best_step,
        outcome.steps,
        config.evaluation.metric,
        "not measured" if outcome.best is None else f"{outcome.best:.4f}",
    )
    metrics = measure_parts(config, folder, model, parts)
    if comm.is_main_process():
        write_hparams(folder, to_plain(config), metrics)
    logger.info("run folder: %s", folder)
    logger.info("curves: tensorboard --logdir %s", folder.parent)
    return DONE

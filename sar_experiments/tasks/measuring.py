"""Measure a model on the parts of a use case; shared by task=train and task=evaluate."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from tqdm import tqdm

from sar_experiments import ranks, run_folder
from sar_experiments.data.loader import eval_loader
from sar_experiments.data.mapper import SarMapper
from sar_experiments.data.radiometry import Radiometry
from sar_experiments.detections import Detections
from sar_experiments.evaluate.metrics import (
    Metrics,
    coco_results,
    flat,
    measure,
    measure_any_class,
    metrics_table,
)
from sar_experiments.evaluate.pictures import proposals_on_truth, truth_beside_detections
from sar_experiments.evaluate.runner import detect, mean_losses, proposals
from sar_experiments.tasks.parts import workers
from sar_experiments.thresholds import Thresholds, unmeasured
from sar_experiments.train.board import ScoredCurve, write_curves
from sar_experiments.train.hooks import StopTraining

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from sar_experiments.config import Config
    from sar_experiments.data.annotations import Dataset, Sample
    from sar_experiments.tasks.interruption import Interruption

logger = logging.getLogger(__name__)

NOTHING = Detections.none()
PROPOSALS = 40
"""Best proposals shown per picture; a hundred hide the image."""


def validation(
    config: Config,
    part: Dataset,
    folder: Path,
    interruption: Interruption,
    *,
    on_thresholds: Callable[[Thresholds], None] = lambda _: None,
) -> Callable[[torch.nn.Module], dict[str, float | None]]:
    """Return what the training loop calls to evaluate: numbers, curves, pictures and losses.

    Args:
        config: Of the run.
        part: What is measured on.
        folder: Run folder.
        interruption: Ends an evaluation early.
        on_thresholds: Called on rank 0 with those chosen, before a checkpoint is written.
    """
    pictured = spread([s for s in part.samples if s["annotations"]], config.evaluation.pictures)

    def validate(model: torch.nn.Module) -> dict[str, float | None]:
        detections = found_in(config, model, part, interruption)

        def measured() -> dict[str, float | None]:
            metrics = measured_on(config, part, detections)
            on_thresholds(metrics.thresholds)
            when = f"{part.name} after step {get_event_storage().iter + 1}"
            images = f"{len(part.samples)} images"
            logger.info("%s, %s:\n%s", when, images, metrics_table(metrics))
            _show_curves(part, metrics, folder)
            _show_pictures(config, part, pictured, metrics, detections)
            _show_proposals(config, model, pictured)
            scores = metrics.thresholds.as_metrics()
            return {**flat(metrics), **scores, **_losses(config, model, part)}

        # What is decided by these numbers must be decided alike on every rank.
        return ranks.from_first(measured)

    return validate


def _show_curves(part: Dataset, metrics: Metrics, folder: Path) -> None:
    """Let TensorBoard show the precision-recall curves."""
    truths = {"all": metrics.hits + metrics.misses}
    truths |= {each.name: each.truths for each in metrics.per_class}
    curves = {
        f"{part.name}/{name}": ScoredCurve(
            curve.scores, curve.precision, curve.recall, truths[name]
        )
        for name, curve in metrics.curves.items()
    }
    write_curves(folder, curves, step=get_event_storage().iter)


def _show_pictures(
    config: Config,
    part: Dataset,
    pictured: Sequence[Sample],
    metrics: Metrics,
    detections: dict[int, Detections],
) -> None:
    """Let TensorBoard show the pictured samples with truth and detections."""
    mapper = sar_mapper(config)
    for sample in pictured:
        picture = truth_beside_detections(
            mapper.read(sample).image,
            sample,
            detections.get(sample["image_id"], NOTHING),
            classes=part.classes,
            min_score=metrics.thresholds.least,
            match_iou=config.evaluation.match_iou,
        )
        title = f"val/{Path(sample['file_name']).name}: truth, found"
        get_event_storage().put_image(title, picture.transpose(2, 0, 1))


def _show_proposals(config: Config, model: torch.nn.Module, pictured: Sequence[Sample]) -> None:
    """Let TensorBoard show where a two-stage detector looks, on the pictured samples."""
    mapper = sar_mapper(config)
    loader = eval_loader(pictured, mapper, batch_size=1, num_workers=0)
    found = proposals(getattr(model, "module", model), loader)
    for sample in pictured:
        boxes = found.get(sample["image_id"])
        if boxes is not None:
            image = mapper.read(sample).image
            picture = proposals_on_truth(image, sample, boxes, count=PROPOSALS)
            title = f"val/{Path(sample['file_name']).name}: proposals"
            get_event_storage().put_image(title, picture.transpose(2, 0, 1))


def _losses(config: Config, model: torch.nn.Module, part: Dataset) -> dict[str, float]:
    loader = eval_loader(
        spread(part.samples, config.evaluation.loss_images),
        sar_mapper(config),
        batch_size=config.evaluation.batch_size,
        num_workers=0,
    )
    bare = getattr(model, "module", model)  # unwrapped: one rank alone computes them
    return mean_losses(bare, loader, seed=config.seed)


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Return ``count`` samples, evenly spread over the sequence, the same every time."""
    step = max(1, len(samples) // max(1, count))
    return list(samples[::step][:count])


def found_in(
    config: Config, model: torch.nn.Module, part: Dataset, interruption: Interruption | None = None
) -> dict[int, Detections]:
    """Run the model over a part, each rank over its share; the first gets what all found.

    Raises:
        StopTraining: An interruption was requested meanwhile.
    """
    loader = eval_loader(
        part.samples,
        sar_mapper(config),
        batch_size=config.evaluation.batch_size,
        num_workers=workers(config),
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
    )
    hidden = not sys.stdout.isatty() or not comm.is_main_process()
    total = -(-len(part.samples) // comm.get_world_size())
    with tqdm(
        desc=f"evaluate {part.name}",
        total=total,
        unit="image",
        file=sys.stdout,  # standard error is the log file
        disable=hidden,
        dynamic_ncols=True,
        leave=False,
    ) as bar:

        def on_image() -> bool:
            bar.update()
            return interruption is None or not interruption.requested

        detections = detect(
            model, loader, max_detections=config.evaluation.max_detections, on_image=on_image
        )
    if detections is None:
        raise StopTraining
    return detections


def measured_on(
    config: Config,
    part: Dataset,
    detections: dict[int, Detections],
    thresholds: Thresholds | None = None,
) -> Metrics:
    """Compare what was found in a part with its truth; see ``measure`` on the thresholds."""
    evaluation = config.evaluation
    return measure(
        part.samples,
        detections,
        part.classes,
        max_detections=evaluation.max_detections,
        match_iou=evaluation.match_iou,
        thresholds=thresholds,
    )


def measure_parts(
    config: Config,
    folder: Path,
    model: torch.nn.Module,
    parts: dict[str, Dataset],
    thresholds: Thresholds | None = None,
) -> dict[str, float | None]:
    """Measure a model on validation and test; as ``record_parts``."""

    def find(part: Dataset) -> dict[int, Detections]:
        return found_in(config, model, part)

    return record_parts(config, folder, parts, find, thresholds)


def record_parts(
    config: Config,
    folder: Path,
    parts: dict[str, Dataset],
    find: Callable[[Dataset], dict[int, Detections]],
    thresholds: Thresholds | None = None,
    *,
    names_classes: bool = True,
) -> dict[str, float | None]:
    """Measure validation and test, write detections.json, show the tables, record the numbers.

    Args:
        config: Says how to measure.
        folder: Run folder.
        parts: Of the use case.
        find: Part -> image id -> detections, whatever makes them.
        thresholds: Scores from which detections count; None chooses them on validation, never on
            test, and takes the default where nothing can be chosen on.
        names_classes: Whether the detector names classes; else it is measured class-agnostic where
            the splits have several.

    Returns:
        The numbers; on rank 0, which alone records and shows them, else none.
    """
    found: dict[str, float | None] = {}
    for name in ("val", "test"):
        if name not in parts:
            continue
        part, detections = parts[name], find(parts[name])
        if not comm.is_main_process():
            continue
        file = run_folder.DETECTIONS if name == "val" else f"{name}_{run_folder.DETECTIONS}"
        run_folder.write_json(folder / file, coco_results(detections, None))
        if thresholds is None and name == "test":
            thresholds = unmeasured(part.classes)
        several = len(part.classes) > 1
        if several and name == "val" and thresholds is not None and thresholds.any_class is None:
            thresholds = _with_any_class(config, part, detections, thresholds)
        measured = measured_on if names_classes or not several else _class_agnostic
        metrics = measured(config, part, detections, thresholds)
        thresholds = metrics.thresholds
        prefix = "" if name == "val" else f"{name}/"
        found |= {f"{prefix}{key}": value for key, value in flat(metrics).items()}
        logger.info("%s, %d images:\n%s", name, len(part.samples), metrics_table(metrics))
    if thresholds is not None and comm.is_main_process():
        found |= thresholds.as_metrics()
        _record(folder, found, thresholds, names_classes=names_classes)
    return found


def _record(
    folder: Path,
    found: dict[str, float | None],
    thresholds: Thresholds,
    *,
    names_classes: bool,
) -> None:
    run_folder.write_json(folder / run_folder.THRESHOLDS, thresholds.to_plain())
    run_folder.update_result(folder, status="completed", metrics=found, names_classes=names_classes)
    for doubt in thresholds.doubts().values():
        logger.warning("%s", doubt)


def _class_agnostic(
    config: Config,
    part: Dataset,
    detections: dict[int, Detections],
    thresholds: Thresholds | None,
) -> Metrics:
    return measure_any_class(
        part.samples,
        detections,
        max_detections=config.evaluation.max_detections,
        match_iou=config.evaluation.match_iou,
        thresholds=thresholds,
    )


def _with_any_class(
    config: Config, part: Dataset, detections: dict[int, Detections], thresholds: Thresholds
) -> Thresholds:
    """Add what an older version did not choose, chosen on validation."""
    chosen = _class_agnostic(config, part, detections, None).thresholds
    return replace(thresholds, any_class=chosen.any_class)


def sar_mapper(
    config: Config, *, training_set: Dataset | None = None, with_masks: bool = False
) -> SarMapper:
    """Return what turns a sample into a model input; one radiometry for training and evaluation.

    Args:
        config: Of the run.
        training_set: Given for training: what is augmented, and what augmentations draw from.
        with_masks: Give outlines to the model.
    """
    return SarMapper(
        Radiometry.from_config(config.radiometry),
        config.augment,
        is_train=training_set is not None,
        with_masks=with_masks,
        dataset=training_set,
    )

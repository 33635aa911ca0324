"""Values of the right type that cannot be meant: refused before anything starts."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from sar_experiments.cfar_checks import cfar_problems
from sar_experiments.config import (
    METRICS,
    PREDICT_OUTPUTS,
    RETRY_CAUSES,
    Device,
    MapperKind,
    Runtime,
    measures_scenes,
    processes,
)
from sar_experiments.detectron2_keys import check_detectron2_keys
from sar_experiments.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sar_experiments.config import (
        Config,
        PredictConfig,
        RadiometryConfig,
        ReportConfig,
        SolverConfig,
    )

# Key -> (lowest, highest) accepted; None leaves a side open.
_RANGES: dict[str, tuple[float | None, float | None]] = {
    "seed": (0, 2**31 - 1),
    "usecase.split_seed": (0, None),
    "usecase.max_empty_share": (0, 1),
    "model.roi_batch_size_per_image": (1, None),
    "solver.max_iter": (1, None),
    "solver.ims_per_batch": (1, None),
    "solver.reference_ims_per_batch": (1, None),
    "solver.accumulate_steps": (1, None),
    "solver.warmup_iters": (0, None),
    "solver.warmup_factor": (0, 1),
    "solver.gamma": (0, 1),
    "solver.momentum": (0, 0.9999),
    "solver.weight_decay": (0, None),
    "solver.log_period": (1, None),
    "solver.checkpoint_period": (1, None),
    "augment.max_size_train": (16, None),
    "augment.min_size_test": (0, None),
    "augment.max_size_test": (16, None),
    "augment.repeat_threshold": (0, 1),
    "augment.min_visible_share": (0, 1),
    "radiometry.channels": (1, None),
    "radiometry.lee_filter_px": (0, None),
    "hardware.num_gpus": (0, 256),  # as many as the seed of a step has room for
    "hardware.cpu_processes": (1, 256),
    "hardware.jobs_per_gpu": (1, None),
    "hardware.jobs": (1, None),
    "hardware.num_workers": (0, None),
    "hardware.grace_s": (0, None),
    "solver.eval_period": (0, None),
    "solver.patience": (0, None),
    "evaluation.max_detections": (1, None),
    "evaluation.min_score": (0, 1),
    "evaluation.match_iou": (0.01, 1),
    "evaluation.batch_size": (1, None),
    "evaluation.pictures": (0, None),
    "evaluation.loss_images": (0, None),
    "predict.tile_px": (32, 16384),
    "predict.overlap_px": (0, None),
    "predict.scale": (0.05, 20),
    "predict.batch_size": (1, None),
    "predict.resolution_m": (0.01, None),
    "predict.readers": (1, 64),
    "predict.merge_overlap": (0.01, 1),
    "predict.merge_nested": (0.5, 1),
    "predict.avoid_buffer_m": (0, None),
    "predict.overview_px": (64, 16384),
    "predict.crop_px": (0, 4096),
    "monitor.refresh_s": (0.1, None),
    "monitor.stalled_s": (1, None),
    "sweep.retries": (0, None),
    "sweep.trials": (1, None),
    "sweep.prune_min_runs": (1, None),
    "sweep.prune_min_step": (0, None),
    "report.runs": (1, 50),
    "report.pictures": (0, 200),
    "serve.port": (0, 65535),
    "serve.max_waiting": (0, 1000),
}
_ABOVE_ZERO = (
    "solver.base_lr",
    "solver.clip_gradients.value",
    "solver.max_loss",
    "model.input_std",
    "serve.max_megabytes",
    "serve.max_megapixels",
)
_MAY_BE_INFINITE = ("solver.max_loss",)


def check_config(config: Config) -> None:
    """Refuse values that are of the right type but cannot be meant.

    Raises:
        ConfigError: Names every such key with its value and what is accepted.
    """
    problems = [*_number_problems(config), *_infinite_problems(config)]
    problems += [*_choice_problems(config), *_group_problems(config)]
    problems += check_detectron2_keys(config.d2)
    if problems:
        raise ConfigError("\n".join(problems))


def value_of(config: object, key: str) -> Any:  # noqa: ANN401 - any key's value
    """Return the value behind a dotted key."""
    for name in key.split("."):
        config = getattr(config, name)
    return config


def _number_problems(config: Config) -> Iterator[str]:
    for key, (lowest, highest) in _RANGES.items():
        value = value_of(config, key)
        if value is None:
            continue
        too_low = lowest is not None and not value >= lowest
        if too_low or (highest is not None and not value <= highest):
            accepted = f"{lowest} or more" if highest is None else f"from {lowest} to {highest}"
            yield f"{key}={value} must be {accepted}"
    for key in _ABOVE_ZERO:
        if not value_of(config, key) > 0:
            yield f"{key}={value_of(config, key)} must be above 0"
    if not 0 < config.usecase.val_share < 1:
        yield f"usecase.val_share={config.usecase.val_share} must lie between 0 and 1"


def _infinite_problems(config: Config) -> Iterator[str]:
    for key in (*_RANGES, *_ABOVE_ZERO):
        if value_of(config, key) == math.inf and key not in _MAY_BE_INFINITE:
            yield f"{key}=inf must be a finite number"


def _choice_problems(config: Config) -> Iterator[str]:
    metric = config.evaluation.metric
    if metric not in METRICS:
        yield f"evaluation.metric={metric} must be one of {', '.join(METRICS)}"
    window_px = config.radiometry.lee_filter_px
    if window_px and window_px % 2 == 0:
        yield f"radiometry.lee_filter_px={window_px} must be odd, or 0 for off"
    scene = config.usecase.scene_pattern
    try:
        pattern = re.compile(scene)
    except re.error as error:
        yield f"usecase.scene_pattern={scene!r} is no regular expression: {error}"
    else:
        if pattern.pattern and "scene" not in pattern.groupindex:
            yield (
                f"usecase.scene_pattern={config.usecase.scene_pattern!r} must have a group named"
                " scene, such as (?P<scene>.+)_\\d+"
            )


def _group_problems(config: Config) -> Iterator[str]:
    yield from _radiometry_problems(config.radiometry)
    yield from _solver_problems(config.solver)
    yield from _sharing_problems(config)
    yield from _augment_problems(config)
    yield from _predict_problems(config.predict)
    yield from _source_problems("source", config.source)
    yield from _source_problems("labels", config.labels)
    yield from _report_problems(config.report)
    yield from _sweep_problems(config)
    classes = config.usecase.classes
    if classes is not None and (not classes or len(set(classes)) != len(classes)):
        yield f"usecase.classes={classes} must name at least one class, each once"
    yield from _polarisation_problems(config)
    if not _are_sizes_per_level(config.model.anchor_sizes):
        yield (
            f"model.anchor_sizes={config.model.anchor_sizes} must hold a list of numbers above 0"
            " per feature level, such as [[8],[16],[32],[64],[128]]"
        )
    if not config.model.anchor_ratios or min(config.model.anchor_ratios) <= 0:
        yield f"model.anchor_ratios={config.model.anchor_ratios} must hold numbers above 0"
    on_scenes = config.task.name in ("predict", "serve") or measures_scenes(config)
    if config.runtime is Runtime.onnx and not on_scenes:
        also = " of images; with source=SCENE labels=FILE it takes either" * (
            config.task.name == "evaluate"
        )
        yield f"runtime=onnx is for task=predict; task={config.task.name}{also} runs by PyTorch"
    if config.model.cfar is not None:
        yield from cfar_problems(config, config.model.cfar)


def _polarisation_problems(config: Config) -> Iterator[str]:
    names, channels = config.usecase.polarisations, config.radiometry.channels
    if names and (len(names) != channels or len(set(names)) != len(names) or "" in names):
        yield (
            f"usecase.polarisations={names} must name one file for each of"
            f" radiometry.channels={channels}, each another; or be empty, for one file in all"
        )


def _are_sizes_per_level(sizes: list[Any]) -> bool:
    """Tell whether sizes is [[number above 0, ...], ...]."""
    levels_are_lists = bool(sizes) and all(isinstance(level, list) and level for level in sizes)
    return levels_are_lists and all(
        isinstance(size, int | float) and 0 < size < math.inf for level in sizes for size in level
    )


def _radiometry_problems(radiometry: RadiometryConfig) -> Iterator[str]:
    per_channel = {"low": radiometry.low, "high": radiometry.high}
    per_channel |= {"mean": radiometry.mean, "std": radiometry.std}
    for name, values in per_channel.items():
        if values is not None and len(values) != radiometry.channels:
            yield (
                f"radiometry.{name}={values} must hold one number for each of"
                f" radiometry.channels={radiometry.channels}"
            )
    if (radiometry.mean is None) != (radiometry.std is None):
        yield "radiometry.mean and radiometry.std are either both measured (null) or both set"
    if min(radiometry.std or [1]) <= 0:
        yield f"radiometry.std={radiometry.std} must be above 0"
    low, high = radiometry.low, radiometry.high
    if (
        low is not None
        and high is not None
        and any(a >= b for a, b in zip(low, high, strict=False))
    ):
        yield f"radiometry.low={low} must lie below radiometry.high={high}"
    percentiles = radiometry.percentiles
    rising = len(percentiles) == 2 and 0 <= percentiles[0] < percentiles[1] <= 100  # noqa: PLR2004
    if not rising:
        yield f"radiometry.percentiles={percentiles} must be two rising numbers in [0, 100]"


def _solver_problems(solver: SolverConfig) -> Iterator[str]:
    if sorted(solver.steps) != solver.steps or min(solver.steps, default=1) < 1:
        yield f"solver.steps={solver.steps} must rise and be above 0"


def _sharing_problems(config: Config) -> Iterator[str]:
    count, images = processes(config), config.solver.ims_per_batch
    if config.task.name == "train" and images % count:
        key = "num_gpus" if config.hardware.device is Device.cuda else "cpu_processes"
        yield (
            f"solver.ims_per_batch={images} counts the images of all GPUs together and must be a"
            f" multiple of hardware.{key}={count}, such as {-(-images // count) * count}"
        )


def _sweep_problems(config: Config) -> Iterator[str]:
    name = config.sweep.name
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+=-]*", name):
        yield (
            f"sweep.name={name!r} must be a plain folder name of letters, digits and ._+=-;"
            " output=DIR takes any path"
        )
    for cause in config.sweep.retry_on:
        if cause not in RETRY_CAUSES:
            yield f"sweep.retry_on={cause} must be one of {', '.join(RETRY_CAUSES)}"
    images = config.solver.ims_per_batch // processes(config)
    if images % max(1, config.solver.accumulate_steps):
        yield (
            f"solver.accumulate_steps={config.solver.accumulate_steps} must divide the {images}"
            " images per step and GPU (solver.ims_per_batch)"
        )


def _augment_problems(config: Config) -> Iterator[str]:
    augment, classes = config.augment, config.usecase.classes
    if min(augment.min_size_train, default=16) < 16:  # noqa: PLR2004 - one stride-16 cell
        yield f"augment.min_size_train={augment.min_size_train} must hold sizes of 16 px or more"
    class_aware = augment.mapper is MapperKind.class_aware
    if class_aware and classes is not None and len(classes) == 1:
        yield one_class_sentence(classes)
    if augment.policies and not class_aware:
        yield "augment.policies are set, but augment.mapper=plain gives all images the same"


def one_class_sentence(classes: list[str]) -> str:
    """Say why class-aware augmentation makes no sense on one class."""
    return (
        f"augment.mapper=class_aware gives each class augmentations of its own, but there is only"
        f" the class {classes[0]!r}; use augment.mapper=plain, for instance with augment=sar_ships"
    )


def _predict_problems(predict: PredictConfig) -> Iterator[str]:
    tile_px, overlap_px = predict.tile_px, predict.overlap_px
    if tile_px is not None and overlap_px is not None and overlap_px * 2 > tile_px:
        yield (
            f"predict.overlap_px={predict.overlap_px} must be at most half of"
            f" predict.tile_px={predict.tile_px}"
        )
    yield from _min_score_problems(predict.min_score)
    unknown = [name for name in predict.outputs if name not in PREDICT_OUTPUTS]
    if unknown:
        yield f"predict.outputs={unknown} must be of {', '.join(PREDICT_OUTPUTS)}"
    if predict.bands is not None and (not predict.bands or min(predict.bands) < 1):
        yield f"predict.bands={predict.bands} must name bands from 1, or null for all"


def _min_score_problems(min_score: Any) -> Iterator[str]:  # noqa: ANN401 - as written
    """Refuse what is no score in [0, 1], for all classes or by class."""
    by_class = min_score if isinstance(min_score, dict) else {"": min_score}
    for name, score in by_class.items():
        is_number = isinstance(score, int | float) and not isinstance(score, bool)
        if min_score is not None and not (is_number and 0 <= score <= 1):
            key = f"predict.min_score.{name}" if name else "predict.min_score"
            yield (
                f"{key}={score} must be from 0 to 1: one number for all classes, or one by class"
                " such as predict.min_score={ship: 0.6, platform: 0.3}"
            )


def _report_problems(report: ReportConfig) -> Iterator[str]:
    sizes_px, pixel_m = report.sizes_px, report.pixel_m
    if not all(0 < size < math.inf for size in sizes_px) or sorted(set(sizes_px)) != sizes_px:
        yield f"report.sizes_px={sizes_px} must rise and be above 0; [] is one bin for all sizes"
    if pixel_m is not None and not 0 < pixel_m < math.inf:
        yield f"report.pixel_m={pixel_m} must be above 0, or null where it is not known"


def _source_problems(key: str, source: object) -> Iterator[str]:
    several = source if isinstance(source, list) else [source]
    if source is not None and not (
        several and all(isinstance(each, str) and each for each in several)
    ):
        a_list = "[a.tif,b.tif]" if key == "source" else "[a.geojson,b.geojson]"
        yield f"{key}={source} must be a path, a pattern, or a list of them: {key}={a_list}"

"""Paths of a config: refused where nothing lies, made to mean the same from any folder."""

from __future__ import annotations

import difflib
import glob
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_experiments import run_folder
from sar_experiments.config import Runtime, measures_scenes
from sar_experiments.errors import ConfigError, SarError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sar_experiments.config import Config, SplitConfig


def with_absolute_paths(config: Config) -> Config:
    """Return the config with paths that mean the same from any folder, as a later task needs."""
    usecase = config.usecase
    usecase = replace(
        usecase,
        train=_absolute_part(usecase.train),
        val=_absolute_part(usecase.val),
        test=_absolute_part(usecase.test),
    )
    if usecase.simulator is not None:
        simulator = replace(
            usecase.simulator, folder=str(Path(usecase.simulator.folder).absolute())
        )
        usecase = replace(usecase, simulator=simulator)
    model = config.model
    if model.weights not in ("zoo", "none"):
        model = replace(model, weights=str(Path(model.weights).absolute()))
    return replace(
        config,
        usecase=usecase,
        model=model,
        weights=_absolute(config.weights),
        source=_absolute_sources(config.source),
        labels=_absolute_sources(config.labels),
        predict=replace(
            config.predict,
            land=_absolute(config.predict.land),
            avoid=[str(Path(each).absolute()) for each in config.predict.avoid],
        ),
        serve=replace(config.serve, root=_absolute(config.serve.root)),
        output=_absolute(config.output),
    )


def _absolute_part(part: SplitConfig) -> SplitConfig:
    return replace(part, images=_absolute(part.images), annotations=_absolute(part.annotations))


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def _absolute_sources(source: Any) -> Any:  # noqa: ANN401 - a path, several, or None
    if isinstance(source, list):
        return [_absolute(each) for each in source]
    return _absolute(source)


def check_paths(config: Config) -> None:
    """Refuse files and folders that are not there, before any process is started.

    Raises:
        ConfigError: Names the key, the path and the nearest name beside it.
    """
    if config.task.name == "monitor":
        return
    if config.model.weights not in ("zoo", "none"):
        _named("model.weights", lambda: run_folder.resolve_weights(Path(config.model.weights)))
    task = config.task.name
    if task == "report":
        _check_sources(config, "a run folder, a folder of runs such as a sweep, a pattern")
        return
    on_scenes = task in ("predict", "serve") or measures_scenes(config)
    if task == "predict" or measures_scenes(config):
        _check_sources(config, "a file, a folder, a pattern")
    if on_scenes:
        _check_masks(config)
    _check_labels(config)
    if task in ("evaluate", "predict", "serve", "export") and config.model.cfar is None:
        _check_weights(config)
    elif not on_scenes and config.usecase.simulator is None:
        _check_data_paths(config)


def _check_weights(config: Config) -> None:
    if config.weights is None:
        msg = f"task={config.task.name} needs weights=RUN_FOLDER or weights=FILE.pth"
        raise ConfigError(msg)
    weights = Path(config.weights)
    is_onnx = config.runtime is Runtime.onnx
    resolve = run_folder.resolve_onnx if is_onnx else run_folder.resolve_weights
    _named("weights", lambda: resolve(weights))


def _check_sources(config: Config, accepted: str) -> None:
    if config.source is None:
        name = "RUN_OR_SWEEP" if config.task.name == "report" else "SCENE"
        msg = f"task={config.task.name} needs source={name}: {accepted}, or a list of them"
        raise ConfigError(msg)
    sources = [config.source] if isinstance(config.source, str) else config.source
    for source in sources:
        if not glob.has_magic(source):
            _check_exists("source", Path(source))


def _check_labels(config: Config) -> None:
    """Refuse labels without scenes, and the other way round."""
    task = config.task.name
    if config.labels is not None and not measures_scenes(config):
        what = "needs source=SCENE too" if task == "evaluate" else "is for task=evaluate"
        msg = f"labels={config.labels} {what}: labels are those of whole scenes"
        raise ConfigError(msg)
    if not measures_scenes(config):
        return
    if config.labels is None:
        msg = (
            "task=evaluate source=SCENE needs labels=FILE: the objects of the scene as GeoJSON or"
            " another vector file, or as COCO in its pixels; images of a dataset are measured"
            " without source="
        )
        raise ConfigError(msg)
    for path in [config.labels] if isinstance(config.labels, str) else config.labels:
        _check_exists("labels", Path(path))


def _check_masks(config: Config) -> None:
    if config.serve.root is not None:
        _check_exists("serve.root", Path(config.serve.root))
    if config.predict.land is not None:
        _check_exists("predict.land", Path(config.predict.land))
    for path in config.predict.avoid:
        _check_exists("predict.avoid", Path(path))


def _check_data_paths(config: Config) -> None:
    if config.task.name == "simulate":
        raise ConfigError("task=simulate makes data for use cases with a simulator: usecase=demo")
    for name in ("train", "val", "test"):
        part = getattr(config.usecase, name)
        # A YOLO data.yaml names the images itself.
        needs_images = not str(part.annotations).lower().endswith((".yaml", ".yml"))
        lacks_images = part.images is None and needs_images
        if name == "train" and (part.annotations is None or lacks_images):
            msg = (
                f"usecase={config.usecase.name} has no data: set usecase.train.images=DIR and"
                " usecase.train.annotations=FILE_OR_DIR (and usecase.val.… likewise, or a"
                " share of the training scenes validates)"
            )
            raise ConfigError(msg)
        if (part.annotations is None) != (part.images is None) and needs_images:
            msg = f"usecase.{name} needs both images and annotations, or neither"
            raise ConfigError(msg)
        for key in ("images", "annotations"):
            path = getattr(part, key)
            if path is not None:
                _check_exists(f"usecase.{name}.{key}", Path(path))


def _check_exists(key: str, path: Path) -> None:
    if path.exists():
        return
    parent = path.absolute().parent
    beside = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    close = next(iter(difflib.get_close_matches(path.name, beside, 1)), None)
    where = f"; beside it lies {close}" if close else "" if beside else f"; nor is {parent}"
    msg = f"{key}={path} does not exist{where}"
    raise ConfigError(msg)


def _named(key: str, check: Callable[[], object]) -> None:
    try:
        check()
    except SarError as error:
        msg = f"{key}: {error}"
        raise ConfigError(msg) from error

"""task=export: a trained network as one ONNX file, compared with the live one before it counts."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sar_experiments import run_folder
from sar_experiments.config import Config, Device, to_plain, to_yaml
from sar_experiments.data.parts import read_parts
from sar_experiments.data.radiometry import Radiometry
from sar_experiments.detections import Detections
from sar_experiments.errors import CheckpointError, DatasetError
from sar_experiments.exit_codes import DONE, FAILED
from sar_experiments.export import agreement, onnx_file
from sar_experiments.export.session import OnnxAbout, OnnxDetector, open_onnx
from sar_experiments.model import build, weights
from sar_experiments.tasks.detectors import stored_thresholds
from sar_experiments.tasks.measuring import sar_mapper, spread
from sar_experiments.tasks.trained import as_trained, overrides_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sar_experiments.tasks.interruption import Interruption

logger = logging.getLogger(__name__)

EXPORT = "export.json"
_IMAGES = 16  # of the validation part
_GENERATED_SIZES = ((512, 512), (200, 333), (96, 96))  # none is the size that was traced
_SHIPS = 12


def run(config: Config, folder: Path, _interruption: Interruption) -> int:
    """Export, compare, and only then put the file where prediction finds it."""
    assert config.weights is not None  # the door checked
    checkpoint = run_folder.resolve_weights(Path(config.weights))
    about = weights.read_about(checkpoint)
    config = as_trained(config, about, overrides_of(folder))
    config = replace(config, hardware=replace(config.hardware, device=Device.cpu))
    run_folder.write_atomically(folder / run_folder.CONFIG, to_yaml(config))
    model = _model(config, about, checkpoint)
    unchecked = folder / f".{run_folder.MODEL_ONNX}"
    try:
        onnx_file.export_onnx(
            model, unchecked, _about(config, about, checkpoint), channels=config.radiometry.channels
        )
        detector = open_onnx(unchecked, threads=0)
        found = agreement.compare(_pairs(config, model, detector))
        code = _record(folder, checkpoint, found)
        if code == DONE:
            home = folder if config.output is not None else checkpoint.parent
            publish(unchecked, home / run_folder.MODEL_ONNX)
    finally:
        unchecked.unlink(missing_ok=True)
    return code


def _model(config: Config, about: weights.About, checkpoint: Path) -> torch.nn.Module:
    spec = build.ModelSpec(config.model.base, config.d2, about.classes)
    model = build.build_model(build.detectron2_config(spec, device="cpu"))
    weights.load_exactly(model, checkpoint)
    model.eval()
    logger.info("model: %s, %s, step %d", config.model.name, checkpoint, about.step)
    return model


def _about(config: Config, about: weights.About, checkpoint: Path) -> OnnxAbout:
    trained = about.config["radiometry"]
    fixed = {name: to_plain(config)[name] for name in ("d2", "evaluation")}
    return OnnxAbout(
        config={**about.config, **fixed},
        classes=about.classes,
        radiometry={key: value for key, value in trained.items() if key != "name"},
        step=about.step,
        checkpoint=checkpoint.name,
        chip_px=about.chip_px,
        lengths_px=about.lengths_px,
        thresholds=stored_thresholds(about.thresholds, checkpoint, about.classes),
        versions=run_folder.versions(),
    )


def _pairs(
    config: Config, model: torch.nn.Module, detector: OnnxDetector
) -> Iterator[tuple[Detections, Detections]]:
    """Yield what the live and the exported network find in real and in generated images."""
    live = onnx_file.BoxesOfOneImage(model).eval()
    for image in (*_validation_images(config), *_generated_images(config)):
        height, width = image.shape[:2]
        chw = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        with torch.no_grad():
            boxes, scores, classes = (each.numpy() for each in live(chw))
        exported = detector.find_encoded(image, input_height=height, input_width=width)
        yield Detections.of(boxes, scores, classes), exported


def _validation_images(config: Config) -> list[NDArray[np.float32]]:
    """Return images as the network sees them, read and resized by the mapper of evaluation."""
    try:
        part = read_parts(config.usecase)["val"]
        mapper = sar_mapper(config)
        images = [mapper.chip(sample).image for sample in spread(part.samples, _IMAGES)]
    except DatasetError as error:
        logger.warning("compared on generated images alone, as the run's own are gone: %s", error)
        return []
    return images


def _generated_images(config: Config) -> list[NDArray[np.float32]]:
    """Return speckle with bright rectangles, in several sizes, and an image of nothing."""
    rng = np.random.default_rng(0)
    radiometry = Radiometry.from_config(config.radiometry)
    images = []
    for height, width in _GENERATED_SIZES:
        level = np.asarray(radiometry.mean) * np.sqrt(rng.gamma(4, 1 / 4, (height, width, 1)))
        for _ in range(_SHIPS):
            top, left = rng.integers(0, height - 20), rng.integers(0, width - 20)
            tall, wide = rng.integers(2, 20, 2)
            level[top : top + tall, left : left + wide] += 0.5
        images.append(np.clip(level, 0, 1).astype(np.float32))
    return [*images, np.zeros_like(images[0])]


def _record(folder: Path, checkpoint: Path, found: agreement.Agreement) -> int:
    """Say and record whether the exported network agrees; a disagreement fails the task."""
    logger.info("%s", found.sentence())
    tolerances = {
        "box_px": agreement.BOX_TOLERANCE_PX,
        "score": agreement.SCORE_TOLERANCE,
        "from_score": agreement.FROM_SCORE,
    }
    numbers = {**asdict(found), "agrees": found.holds}
    run_folder.write_json(
        folder / EXPORT,
        {
            "checkpoint": str(checkpoint),
            "agreement": numbers,
            "tolerances": tolerances,
            "versions": run_folder.versions(),
        },
    )
    metrics = {name: float(value) for name, value in asdict(found).items()}
    if found.holds:
        run_folder.update_result(folder, status="completed", metrics=metrics)
        return DONE
    why = f"the exported network disagrees with the live one, no file is kept: {found.sentence()}"
    run_folder.update_result(folder, status="failed", cause="exit", why=why, metrics=metrics)
    logger.error("%s", why)
    return FAILED


def publish(unchecked: Path, path: Path) -> None:
    """Put the file where prediction finds it; say what it was made of, and what it replaces.

    Raises:
        CheckpointError: The place cannot be written.
    """
    made_of, earlier = _made_of(unchecked), _made_of(path) if path.exists() else None
    try:
        run_folder.write_atomically(path, unchecked.read_bytes())
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); choose another place with output=DIR"
        raise CheckpointError(msg) from error
    if earlier not in (None, made_of):
        logger.warning("%s held an export of %s; now it is of %s", path, earlier, made_of)
    logger.info("exported: %s, of %s, %.1f MB", path, made_of, path.stat().st_size / 1e6)
    logger.info("predict: task=predict runtime=onnx weights=%s source=…", path.parent)


def _made_of(path: Path) -> str:
    """Name the checkpoint that an ONNX file was made of."""
    try:
        about = open_onnx(path, threads=0).about
    except CheckpointError:
        return "something unreadable"
    return f"{about.checkpoint}, step {about.step}"

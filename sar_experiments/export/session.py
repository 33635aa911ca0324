"""FRONT DOOR open_onnx(), OnnxDetector: an exported network by ONNX Runtime, on the CPU.

Imports neither torch nor detectron2. The file says itself which classes it finds and by which
radiometry its input is made.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_experiments.data.chip import Chip, resized
from sar_experiments.data.radiometry import Radiometry, from_dict
from sar_experiments.detections import Detections
from sar_experiments.errors import CheckpointError, HardwareError
from sar_experiments.thresholds import POOLED, Thresholds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sar_experiments.predict.detector import Tile

METADATA_KEY = "sar_experiments"
"""Of the ONNX file's metadata: an OnnxAbout as JSON."""

INPUT = "image"
OUTPUTS = ("boxes", "scores", "classes")


@dataclass(frozen=True)
class OnnxAbout:
    """Who an ONNX file is; its metadata holds it.

    Attributes:
        config: The run's config as plain values.
        classes: Class names in the order of the network's outputs.
        radiometry: Stored pixels -> input, as ``Radiometry.to_dict`` gives it.
        step: Steps that were trained.
        checkpoint: Name of the file that was exported.
        chip_px: Shortest edge of the training images as files have them; None if unknown.
        thresholds: Scores from which detections of each class count; None if unknown.
        versions: Packages that wrote the file.
        lengths_px: How many training objects are so long; None if unknown.
    """

    config: Mapping[str, Any]
    classes: tuple[str, ...]
    radiometry: Mapping[str, Any]
    step: int
    checkpoint: str
    chip_px: int | None
    thresholds: Thresholds | None
    versions: Mapping[str, str]
    lengths_px: Sequence[Sequence[int]] | None = None

    def to_json(self) -> str:
        """Return what the metadata holds."""
        kept = None if self.thresholds is None else self.thresholds.to_plain()
        return json.dumps({**asdict(self), "thresholds": kept}, sort_keys=True)


@dataclass(frozen=True, eq=False)
class OnnxDetector:
    """Tiles through radiometry and an exported network; the same object serves every scene.

    Attributes:
        session: ONNX Runtime's.
        about: Who the file is.
        radiometry: That of the training.
        scale: Factor by which images are enlarged for the network.
    """

    session: Any
    about: OnnxAbout
    radiometry: Radiometry
    scale: float = 1.0

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the network's outputs."""
        return self.about.classes

    def __call__(self, tiles: Sequence[Tile]) -> list[Detections]:
        """Return the detections of each tile, in pixels of the tile."""
        return [self.find(tile.pixels, tile.valid) for tile in tiles]

    def find(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> Detections:
        """Return the detections of one image, best first, in its pixels.

        Args:
            pixels: (H, W, C) as stored.
            valid: (H, W), False where there is no data.
        """
        image = self.radiometry.encode(pixels, valid=valid)
        height, width = image.shape[:2]
        scaled_size = (max(1, round(side * self.scale)) for side in (height, width))
        scaled_height, scaled_width = scaled_size
        return self.find_encoded(image, input_height=scaled_height, input_width=scaled_width)

    def find_encoded(
        self, image: NDArray[np.float32], *, input_height: int, input_width: int
    ) -> Detections:
        """Return the detections of one encoded image, best first, in its pixels.

        Args:
            image: (H, W, C) in [0, 1].
            input_height: Rows that the network sees.
            input_width: Columns that the network sees.
        """
        height, width = image.shape[:2]
        if (input_height, input_width) != (height, width):
            image = resized(Chip.of(image), height=input_height, width=input_width).image
        chw = np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)
        boxes, scores, classes = self.session.run(list(OUTPUTS), {INPUT: chw})
        found = Detections.of(
            boxes * np.array([width / input_width, height / input_height] * 2, np.float32),
            scores,
            classes,
        )
        found = replace(
            found, boxes=np.clip(found.boxes, 0, np.array([width, height] * 2, np.float32))
        )
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        found = found.select(np.asarray((sides > 0).all(axis=1)))
        return found.select((-found.scores).argsort(kind="stable"))


def open_onnx(path: Path, *, threads: int, scale: float = 1.0) -> OnnxDetector:
    """Open an exported network.

    Args:
        path: The .onnx file.
        threads: Cores that an image's arithmetic is shared by.
        scale: Factor by which images are enlarged for the network.

    Raises:
        HardwareError: ONNX Runtime is not installed.
        CheckpointError: The file is missing, broken or not exported by this package.
    """
    try:
        import onnxruntime
    except ImportError as error:
        msg = (
            "runtime=onnx needs ONNX Runtime, which is not installed:"
            " pip install 'sar-experiments[export]'"
        )
        raise HardwareError(msg) from error
    if not path.is_file():
        msg = f"{path} is missing; task=export weights=RUN_FOLDER writes it"
        raise CheckpointError(msg)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors alone: warnings speak of fused nodes
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's own exceptions have no common base
        first_line = str(error).splitlines()[0]
        msg = f"{path} cannot be read as an ONNX file: {first_line}"
        raise CheckpointError(msg) from error
    about = _read_about(path, session.get_modelmeta().custom_metadata_map)
    return OnnxDetector(session, about, from_dict(about.radiometry), scale)


def _read_about(path: Path, metadata: Mapping[str, str]) -> OnnxAbout:
    try:
        content = json.loads(metadata[METADATA_KEY])
        content["classes"] = tuple(content["classes"])
        pooled, kept = content.pop("min_score", None), content.pop("thresholds", None)
        return OnnxAbout(**content, thresholds=_thresholds(kept, pooled, content["classes"]))
    except (KeyError, ValueError, TypeError) as error:
        msg = f"{path} does not say which run it is from; task=export writes files that do"
        raise CheckpointError(msg) from error


def _thresholds(
    kept: Mapping[str, Any] | None, pooled: float | None, classes: Sequence[str]
) -> Thresholds | None:
    """Return the thresholds of a file; one that an older version wrote holds one for all."""
    if kept is not None:
        return Thresholds.from_plain(kept, classes)
    return None if pooled is None else Thresholds.alike(classes, pooled, POOLED)

"""The data that runs were measured on, read once for all runs that share it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_experiments import run_folder
from sar_experiments.config import from_plain
from sar_experiments.data.checks import without_faulty
from sar_experiments.data.findings import Finding
from sar_experiments.data.images import polarisation_files
from sar_experiments.data.parts import read_parts
from sar_experiments.errors import DatasetError, SarError
from sar_experiments.predict.scene import Scene
from sar_experiments.predict.sources import SceneFiles
from sar_experiments.report.runs import trained_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sar_experiments.config import Config, UsecaseConfig
    from sar_experiments.data.annotations import Dataset, Sample
    from sar_experiments.report.runs import Run

GEOTIFF = (".tif", ".tiff")
_PROBES = 20  # images whose georeference is read
_SAME_SIZE = 0.02  # relative difference between their pixels that is called none
_M2_PER_KM2 = 1e6


@dataclass(frozen=True)
class PixelSize:
    """Ground distance between pixels.

    Attributes:
        height_m: From row to row.
        width_m: From column to column.
        origin: What says so.
    """

    height_m: float
    width_m: float
    origin: str

    @property
    def mean_m(self) -> float:
        """Return the side of a square of the same area."""
        return math.sqrt(self.height_m * self.width_m)


@dataclass(frozen=True, eq=False)
class Truth:
    """Images with their objects, as runs were measured on them.

    Attributes:
        key: Alike for runs that were measured on the same truth in the same way, whatever they
            learnt from.
        part: The images.
        missing: How many image files are not there.
        pixel: None where nothing tells the size of a pixel.
        validation: What thresholds are chosen on; None where there is none.
    """

    key: str
    part: Dataset
    missing: int
    pixel: PixelSize | None
    validation: Dataset | None

    @cached_property
    def objects(self) -> int:
        """Return the number of objects that count."""
        return sum(not each["iscrowd"] for s in self.part.samples for each in s["annotations"])

    @cached_property
    def area_km2(self) -> float | None:
        """Return the area of all images, no data included."""
        if self.pixel is None:
            return None
        pixels = sum(sample["height"] * sample["width"] for sample in self.part.samples)
        area_m2: float = pixels * self.pixel.height_m * self.pixel.width_m
        return area_m2 / _M2_PER_KM2


class Truths:
    """Reads what runs were measured on."""

    def __init__(self, config: Config) -> None:
        """Read nothing yet.

        Args:
            config: Of the report: which part, how large pixels are, and keys that older runs lack.
        """
        self._config = config
        self._read: dict[str, Truth | str] = {}
        self._learnt: dict[str, frozenset[str]] = {}

    def of(self, run: Run) -> Truth | str:
        """Return the truth of a run, or one sentence that says why it cannot be read."""
        usecase, evaluation = run.config.get("usecase"), run.config.get("evaluation")
        if not isinstance(usecase, dict) or not isinstance(evaluation, dict):
            return f"{run_folder.CONFIG} is missing or broken"
        told: list[Any] = [usecase, evaluation.get("match_iou"), evaluation.get("max_detections")]
        if usecase.get("ignore_bad_samples"):  # what was left out stands in the run folder
            told.append(str(run.folder))
        key = _as_key(told)
        if key not in self._read:
            try:
                self._read[key] = self._truth(run)
            except (SarError, OSError, ValueError) as error:
                self._read[key] = " ".join(str(error).split())
        return self._read[key]

    def seen(self, run: Run, truth: Truth) -> int | None:
        """Return how many of the images the run's network learnt from; None if nothing tells."""
        if run.is_cfar:
            return 0
        config = trained_config(run)
        usecase = config.get("usecase")
        if not isinstance(usecase, dict):
            return None
        key = _as_key(usecase)
        if key not in self._learnt:
            try:
                typed = from_plain(config, origin=run.name, defaults=self._config)
                self._learnt[key] = _files(read_parts(typed.usecase)["train"])
            except (SarError, OSError, ValueError):
                return None
        return sum(sample["file_name"] in self._learnt[key] for sample in truth.part.samples)

    def _truth(self, run: Run) -> Truth | str:
        config = from_plain(run.config, origin=str(run.folder), defaults=self._config)
        parts = read_parts(config.usecase)
        name = self._config.report.part.value
        if name not in parts:
            return f"the use case has no {name} split"
        part = parts[name]
        if config.usecase.ignore_bad_samples:
            part, _ = without_faulty(part, _errors(run.folder))
        self._learnt[_as_key(run.config["usecase"])] = _files(parts["train"])
        return Truth(
            key=_fingerprint(part, config),
            part=part,
            missing=sum(not _is_there(sample) for sample in part.samples),
            pixel=self._pixel(part, config.usecase),
            validation=part if name == "val" else parts.get("val"),
        )

    def _pixel(self, part: Dataset, usecase: UsecaseConfig) -> PixelSize | None:
        wanted = self._config.report.pixel_m
        if wanted is not None:
            return PixelSize(wanted, wanted, "report.pixel_m")
        made = usecase.simulator
        if made is not None and part.images.resolve().is_relative_to(Path(made.folder).resolve()):
            return PixelSize(made.pixel_m, made.pixel_m, "the simulator")
        return _georeferenced(part.samples)


def _as_key(plain: object) -> str:
    return json.dumps(plain, sort_keys=True, default=str)


def _files(part: Dataset) -> frozenset[str]:
    return frozenset(sample["file_name"] for sample in part.samples)


def pixel_of_cfar(runs: Iterable[Run]) -> PixelSize | None:
    """Return the size of a pixel that a CFAR run on the same images was told."""
    for run in runs:
        if run.is_cfar and isinstance(run.config["model"]["cfar"].get("pixel_m"), int | float):
            pixel_m = float(run.config["model"]["cfar"]["pixel_m"])
            return PixelSize(pixel_m, pixel_m, f"model.cfar.pixel_m of {run.name}")
    return None


def files_of(sample: Sample) -> list[Path]:
    """Return the image files of a sample, one per polarisation."""
    return polarisation_files(Path(sample["file_name"]))


def _is_there(sample: Sample) -> bool:
    return all(file.is_file() for file in files_of(sample))


def _errors(folder: Path) -> list[Finding]:
    """Return the errors that the run's own data check found."""
    path = folder / run_folder.CHECK
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = [Finding(**each) for each in content["findings"]]
    except (TypeError, KeyError, ValueError) as error:
        msg = f"{path} does not tell what was left out of the data: {error}"
        raise DatasetError(msg) from error
    return [each for each in found if each.severity == "error"]


def _fingerprint(part: Dataset, config: Config) -> str:
    """Return what truths share that mean the same, wherever the files lie now."""
    told = [
        part.classes,
        config.evaluation.match_iou,
        config.evaluation.max_detections,
        [
            [
                *(Path(s["file_name"]).name, s["image_id"], s["height"], s["width"]),
                *((a["category_id"], a["iscrowd"], *a["bbox"]) for a in s["annotations"]),
            ]
            for s in part.samples
        ],
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]


def _georeferenced(samples: Sequence[Sample]) -> PixelSize | None:
    """Return the size of a pixel that geo-referenced images agree on."""
    sizes = []
    for sample in samples[:: max(1, len(samples) // _PROBES)][:_PROBES]:
        file = files_of(sample)[0]
        if file.suffix.lower() not in GEOTIFF:
            return None
        try:
            scene = Scene(SceneFiles(file.stem, (file,), ()))
        except (SarError, OSError):
            return None
        sizes.append(scene.header.pixel_m)
        scene.close()
    first = sizes[0] if sizes else None
    if first is None:
        return None
    for each in sizes:
        if each is None or abs(each[0] * each[1] / (first[0] * first[1]) - 1) > _SAME_SIZE:
            return None
    return PixelSize(first[0], first[1], "geo-referenced images")

"""What is wrong with a dataset, found before any GPU is used."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_experiments.data.images import image_size
from sar_experiments.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sar_experiments.data.annotations import BoxAnnotation, Dataset, Sample
    from sar_experiments.data.radiometry import Radiometry

ROUNDING_PX = 1.0
"""Boxes may stick out this far: annotation tools round."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        severity: ``error`` stops training, ``warning`` does not.
        code: Kind of fault, the same for all of a kind.
        part: ``train``, ``val`` or ``test``.
        file: Image concerned; empty where it is the whole part.
        annotation: Its annotation id; None where it is the image.
        sentence: Says it all.
    """

    severity: str
    code: str
    part: str
    file: str
    annotation: int | None
    sentence: str


@dataclass(frozen=True, eq=False)
class Report:
    """What the checks found, errors first."""

    findings: tuple[Finding, ...]
    parts: dict[str, dict[str, int]]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Those that stop training."""
        return tuple(each for each in self.findings if each.severity == "error")

    def as_table(self) -> str:
        """Return the findings by kind with their number and the first files, and class counts."""
        lines = [
            f"{part}: " + ", ".join(f"{k} {v}" for k, v in c.items())
            for part, c in self.parts.items()
        ]
        kinds = Counter((f.severity, f.part, f.code) for f in self.findings)
        for (severity, part, code), count in sorted(kinds.items()):
            first = [f.sentence for f in self.findings if (f.part, f.code) == (part, code)][:3]
            lines.append(f"{severity}: {part}: {count} x {code}")
            lines += [f"    {sentence}" for sentence in first]
        if not self.findings:
            lines.append("nothing wrong was found")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"findings": [asdict(each) for each in self.findings], "parts": self.parts}


def check_datasets(
    parts: Mapping[str, Dataset],
    *,
    radiometry: Radiometry,
    anchor_sizes: list[list[float]],
    workers: int,
    cache: Path | None,
    progress: Callable[[int, int], None] | None,
) -> Report:
    """Look at every image's header and every box."""
    findings = [f for part, data in parts.items() for f in _part_findings(part, data, workers)]
    findings += _shared_scenes(parts)
    findings.sort(key=lambda each: (each.severity, each.part, each.code, each.file))
    return Report(tuple(findings), {part: data.class_counts() for part, data in parts.items()})


def without_bad_samples(dataset: Dataset, report: Report) -> tuple[Dataset, dict[str, int]]:
    """Return the dataset without the images and boxes that errors name, and how many of each."""
    errors = [each for each in report.errors if each.part == dataset.name]
    bad_files = {each.file for each in errors if each.annotation is None}
    bad_boxes = {each.annotation for each in errors if each.annotation is not None}
    kept = tuple(
        _without_boxes(sample, bad_boxes)
        for sample in dataset.samples
        if sample["file_name"] not in bad_files
    )
    counts = {"images": len(dataset.samples) - len(kept), "boxes": len(bad_boxes)}
    return replace(dataset, samples=kept), {k: v for k, v in counts.items() if v}


def write_figures(report: Report, folder: Path) -> None:
    """Nothing to draw yet."""


def _without_boxes(sample: Sample, bad: set[int]) -> Sample:
    kept = [each for each in sample["annotations"] if each["id"] not in bad]
    return {**sample, "annotations": kept}


def _part_findings(part: str, dataset: Dataset, workers: int) -> Iterator[Finding]:
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for sample, sentence in zip(
            dataset.samples, pool.map(_image_fault, dataset.samples), strict=True
        ):
            if sentence:
                yield Finding("error", "image", part, sample["file_name"], None, sentence)
    for sample in dataset.samples:
        for annotation in sample["annotations"]:
            fault = _box_fault(sample, annotation)
            if fault:
                severity, code, what = fault
                sentence = f"{sample['file_name']}: annotation {annotation['id']} {what}"
                file = sample["file_name"]
                yield Finding(severity, code, part, file, annotation["id"], sentence)


def _image_fault(sample: Sample) -> str | None:
    path = Path(sample["file_name"])
    try:
        height, width, _ = image_size(path)
    except DatasetError as error:
        return str(error)
    if (height, width) == (sample["height"], sample["width"]):
        return None
    annotated = f"{sample['width']} x {sample['height']}"
    return f"{path} is {width} x {height} px, annotated as {annotated} px"


def _box_fault(sample: Sample, annotation: BoxAnnotation) -> tuple[str, str, str] | None:
    left, top, right, bottom = annotation["bbox"]
    width, height = sample["width"], sample["height"]
    size = f"box ({left:g}, {top:g}, {right:g}, {bottom:g})"
    if not (right > left and bottom > top):
        return "error", "empty box", f"has an empty {size}"
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        return "error", "box outside", f"has a {size} outside its image of {width} x {height} px"
    outside = max(-left, -top, right - width, bottom - height)
    if outside > ROUNDING_PX:
        return "warning", "box cut", f"has a {size} that sticks out by {outside:g} px"
    return None


def _shared_scenes(parts: Mapping[str, Dataset]) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for part, dataset in parts.items():
        for scene in sorted({sample["scene"] for sample in dataset.samples}):
            if seen.setdefault(scene, part) != part:
                sentence = f"scene {scene} is in {seen[scene]} and in {part}"
                yield Finding("warning", "shared scene", part, "", None, sentence)

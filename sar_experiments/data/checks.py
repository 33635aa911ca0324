"""What is wrong with a dataset, found before any GPU is used.

Errors stop training; warnings do not. What annotations themselves get wrong (ids twice, unknown
classes, lines that cannot be read) is found by their readers and told here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_experiments.data.box_sizes import (
    AnchorFit,
    AnchorProposal,
    anchor_fit,
    box_sizes,
    propose_anchors,
)
from sar_experiments.data.image_scan import ImageScan, scan_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from sar_experiments.data.annotations import BoxAnnotation, Dataset, Sample
    from sar_experiments.data.radiometry import Radiometry

ROUNDING_PX = 1.0
"""Boxes may stick out this far: annotation tools round."""
TINY_PX = 3.0
"""A side below this is hardly a pixel or two of signal."""
AREA_SLACK = 1.01
"""An object cannot cover more than its box; the slack is for rounding."""
SHOWN = 3
"""Sentences per kind in the table; check.json holds all."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        severity: ``error`` or ``warning``.
        code: Kind of fault.
        part: ``train``, ``val`` or ``test``.
        file: Image concerned; empty where it is the whole part.
        annotation: Its annotation id; None where it is the image or the part.
        sentence: Says it all.
    """

    severity: str
    code: str
    part: str
    file: str
    annotation: int | None
    sentence: str


@dataclass(frozen=True, eq=False)
class PartStatistics:
    """Numbers of one part.

    Attributes:
        images: Images in it.
        empty_share: Share of images without objects.
        objects: Class -> objects.
        mean: Per channel, of valid encoded pixels in [0, 1]; for ``radiometry.mean``.
        std: Likewise; for ``radiometry.std``.
        histogram: Shares of encoded pixels in equal bins over [0, 1].
        sizes: (N, 2) width and height of boxes in pixels, as the network sees them.
    """

    images: int
    empty_share: float
    objects: dict[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    histogram: tuple[float, ...]
    sizes: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Report:
    """What the checks found.

    Attributes:
        findings: Errors first.
        parts: Part -> numbers.
        anchor_sizes: Of the model.
        fit: Of the model's anchors to the training boxes.
        proposal: Anchors that fit better; None where there are too few boxes.
    """

    findings: tuple[Finding, ...]
    parts: dict[str, PartStatistics]
    anchor_sizes: list[list[float]]
    fit: AnchorFit
    proposal: AnchorProposal | None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Those that stop training."""
        return tuple(each for each in self.findings if each.severity == "error")

    def as_table(self) -> str:
        """Return what a person needs to know, for a terminal."""
        return "\n".join([*_part_lines(self), *_anchor_lines(self), *_finding_lines(self.findings)])

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain values, boxes as percentiles."""
        parts = {}
        for name, part in self.parts.items():
            longest = part.sizes.max(axis=1) if len(part.sizes) else np.zeros(0)
            parts[name] = asdict(replace(part, sizes=np.zeros((0, 2)))) | {
                "sizes": _percentiles(longest)
            }
        return {
            "findings": [asdict(each) for each in self.findings],
            "parts": parts,
            "anchors": {"sizes": self.anchor_sizes, **asdict(self.fit)},
            "proposal": None if self.proposal is None else asdict(self.proposal),
        }


@dataclass(frozen=True)
class CheckSettings:
    """How to look.

    Attributes:
        radiometry: Stored pixels -> [0, 1].
        anchor_sizes: Of the model, in pixels, a list per level.
        anchor_ratios: Of the model, height over width.
        min_size_px: Shortest edge that images are resized to; 0 keeps the size of the file.
        max_size_px: Longest edge after resizing.
        workers: Threads that decode.
        cache: File that remembers decoded images; None forgets.
    """

    radiometry: Radiometry
    anchor_sizes: list[list[float]]
    anchor_ratios: list[float]
    min_size_px: int
    max_size_px: int
    workers: int
    cache: Path | None = None


def check_datasets(
    parts: Mapping[str, Dataset],
    settings: CheckSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Decode every image and look at every box.

    Args:
        parts: ``train``, and ``val`` and ``test`` where there are.
        settings: How to look.
        progress: Called with the number of images done and of all images.
    """
    paths = [Path(sample["file_name"]) for part in parts.values() for sample in part.samples]
    scans = scan_images(
        paths,
        settings.radiometry,
        workers=settings.workers,
        cache=settings.cache,
        progress=progress,
    )
    findings: list[Finding] = []
    for name, part in parts.items():
        findings += _reading_findings(name, part)
        findings += _image_findings(name, part, scans)
        findings += _box_findings(name, part)
        findings += _class_findings(name, part)
    findings += _shared_images(parts, scans)
    findings += _shared_scenes(parts)
    findings.sort(key=lambda each: (each.severity, each.part, each.code, each.file))
    numbers = {name: _statistics(part, scans, settings) for name, part in parts.items()}
    sizes = numbers["train"].sizes
    levels = settings.anchor_sizes
    return Report(
        tuple(findings),
        numbers,
        levels,
        anchor_fit(sizes, levels, settings.anchor_ratios),
        propose_anchors(sizes, levels=len(levels), sizes_per_level=len(levels[0])),
    )


def without_bad_samples(dataset: Dataset, report: Report) -> tuple[Dataset, dict[str, int]]:
    """Return the dataset without the images and boxes that errors name, and how many of each.

    What its reader could not use is not in it anyway and counted as ``records``.
    """
    errors = [each for each in report.errors if each.part == dataset.name]
    bad_files = {each.file for each in errors if each.annotation is None}
    bad_boxes = {each.annotation for each in errors if each.annotation is not None}
    kept = tuple(
        _without_boxes(sample, bad_boxes)
        for sample in dataset.samples
        if sample["file_name"] not in bad_files
    )
    unread = sum(fault.severity == "error" for fault in dataset.faults)
    left_out = len(dataset.samples) - len(kept)
    counts = {"images": left_out, "boxes": len(bad_boxes), "records": unread}
    return replace(dataset, samples=kept), {name: count for name, count in counts.items() if count}


def _without_boxes(sample: Sample, bad: set[int]) -> Sample:
    kept = [each for each in sample["annotations"] if each["id"] not in bad]
    return {**sample, "annotations": kept}


# --- Findings ------------------------------------------------------------------------------------


def _reading_findings(part: str, dataset: Dataset) -> Iterator[Finding]:
    for fault in dataset.faults:
        yield Finding(fault.severity, fault.code, part, fault.file, None, fault.sentence)


def _image_findings(
    part: str, dataset: Dataset, scans: Mapping[Path, ImageScan]
) -> Iterator[Finding]:
    for sample in dataset.samples:
        file = sample["file_name"]
        scan = scans[Path(file)]
        if scan.fault:
            yield Finding("error", "image cannot be used", part, file, None, scan.fault)
        elif (scan.height, scan.width) != (sample["height"], sample["width"]):
            annotated = f"{sample['width']} x {sample['height']}"
            sentence = f"{file} is {scan.width} x {scan.height} px, annotated as {annotated} px"
            yield Finding("error", "image size differs", part, file, None, sentence)


def _box_findings(part: str, dataset: Dataset) -> Iterator[Finding]:
    for sample in dataset.samples:
        seen: set[tuple[Any, ...]] = set()
        for annotation in sample["annotations"]:
            identity = (annotation["category_id"], *annotation["bbox"])
            faults = [*_box_faults(sample, annotation)]
            if identity in seen:
                faults.append(("warning", "box twice", "repeats an earlier box"))
            seen.add(identity)
            for severity, code, what in faults:
                file, number = sample["file_name"], annotation["id"]
                sentence = f"{file}: annotation {number} {what}"
                yield Finding(severity, code, part, file, number, sentence)


def _box_faults(sample: Sample, annotation: BoxAnnotation) -> Iterator[tuple[str, str, str]]:
    left, top, right, bottom = annotation["bbox"]
    width, height = sample["width"], sample["height"]
    box = f"({left:g}, {top:g}, {right:g}, {bottom:g})"
    image = f"its image of {width} x {height} px"
    if not (right > left and bottom > top):  # NaN included
        yield "error", "box empty", f"has the empty box {box}"
        return
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        yield "error", "box outside", f"has the box {box} outside {image}"
        return
    outside = max(-left, -top, right - width, bottom - height)
    if right - left > width + ROUNDING_PX or bottom - top > height + ROUNDING_PX:
        yield "warning", "box larger than the image", f"has the box {box}, larger than {image}"
    elif outside > ROUNDING_PX:
        yield "warning", "box cut", f"has the box {box}, {outside:g} px outside {image}"
    if min(right - left, bottom - top) < TINY_PX:
        yield "warning", "box tiny", f"has the box {box}, below {TINY_PX:g} px"
    area = (right - left) * (bottom - top)
    if not 0 < annotation["area"] <= AREA_SLACK * area:
        yield "warning", "area wrong", f"has area {annotation['area']:g} in a box of {area:g} px²"


def _class_findings(part: str, dataset: Dataset) -> Iterator[Finding]:
    for name, count in dataset.class_counts().items():
        if not count:
            sentence = f"{part} has no object of class {name}"
            yield Finding("warning", "class unused", part, "", None, sentence)


def _shared_images(
    parts: Mapping[str, Dataset], scans: Mapping[Path, ImageScan]
) -> Iterator[Finding]:
    places: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for part, dataset in parts.items():
        for sample in dataset.samples:
            digest = scans[Path(sample["file_name"])].digest
            if digest:
                places[digest].append((part, sample["file_name"]))
    for (first_part, first), *copies in places.values():
        for part, file in copies:
            code = "image twice" if part == first_part else "image shared by parts"
            sentence = f"{part} holds {file}, which {first_part} holds as {first}"
            yield Finding("warning", code, part, file, None, sentence)


def _shared_scenes(parts: Mapping[str, Dataset]) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for part, dataset in parts.items():
        for scene in sorted({sample["scene"] for sample in dataset.samples}):
            if first.setdefault(scene, part) != part:
                sentence = f"scene {scene} is in {first[scene]} and in {part}"
                yield Finding("warning", "scene shared by parts", part, "", None, sentence)


# --- Numbers -------------------------------------------------------------------------------------


def _statistics(
    dataset: Dataset, scans: Mapping[Path, ImageScan], settings: CheckSettings
) -> PartStatistics:
    mean, std, histogram = _pixel_statistics(
        scans[Path(sample["file_name"])] for sample in dataset.samples
    )
    return PartStatistics(
        images=len(dataset.samples),
        empty_share=dataset.empty_share(),
        objects=dataset.class_counts(),
        mean=mean,
        std=std,
        histogram=histogram,
        sizes=box_sizes(
            dataset, min_size_px=settings.min_size_px, max_size_px=settings.max_size_px
        ),
    )


def _pixel_statistics(
    scans: Iterable[ImageScan],
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    usable = [scan for scan in scans if scan.pixels]
    if not usable:
        return (), (), ()
    pixels = np.maximum(np.sum([scan.pixels for scan in usable], axis=0), 1)
    mean = np.sum([scan.total for scan in usable], axis=0) / pixels
    variance = np.sum([scan.squares for scan in usable], axis=0) / pixels - mean**2
    histogram = np.sum([scan.histogram for scan in usable], axis=0)
    shares = histogram / max(1, histogram.sum())
    std = np.sqrt(np.maximum(variance, 0.0))
    return tuple(mean.tolist()), tuple(std.tolist()), tuple(shares.tolist())


def _percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {}
    levels = (0, 5, 25, 50, 75, 95, 100)
    return {
        f"p{level}": round(float(value), 1)
        for level, value in zip(levels, np.percentile(values, levels), strict=True)
    }


# --- Table ---------------------------------------------------------------------------------------


def _part_lines(report: Report) -> Iterator[str]:
    names = list(next(iter(report.parts.values())).objects)
    width = max(14, *(len(name) for name in names))
    yield "  ".join([" " * width, *(f"{name:>8}" for name in report.parts)])
    for title, numbers in (
        ("images", [f"{p.images}" for p in report.parts.values()]),
        ("without objects", [f"{p.empty_share:.0%}" for p in report.parts.values()]),
        *((n, [f"{p.objects[n]}" for p in report.parts.values()]) for n in names),
        ("pixel mean", [_numbers(p.mean) for p in report.parts.values()]),
        ("pixel std", [_numbers(p.std) for p in report.parts.values()]),
    ):
        yield "  ".join([title.ljust(width), *(f"{number:>8}" for number in numbers)])


def _anchor_lines(report: Report) -> Iterator[str]:
    sizes = report.parts["train"].sizes
    if not len(sizes):
        return
    levels = _percentiles(sizes.max(axis=1))
    text = ", ".join(f"{name[1:]} %: {value:g}" for name, value in levels.items())
    yield f"longest side of boxes in px, percentiles: {text}"
    yield (
        f"anchors {report.anchor_sizes} reach {report.fit.reached_share:.0%} of the boxes"
        f" (mean overlap {report.fit.mean_iou:.2f})"
    )
    if report.proposal is not None and report.proposal.fit.mean_iou > report.fit.mean_iou:
        found = report.proposal
        keys = f"model.anchor_sizes={found.sizes} model.anchor_ratios={found.ratios}"
        yield (
            f"k-means proposes {keys.replace(', ', ',')}, which reach"
            f" {found.fit.reached_share:.0%} (mean overlap {found.fit.mean_iou:.2f})"
        )


def _finding_lines(findings: tuple[Finding, ...]) -> Iterator[str]:
    if not findings:
        yield "nothing wrong was found"
    kinds = Counter((each.severity, each.part, each.code) for each in findings)
    for (severity, part, code), count in sorted(kinds.items()):
        yield f"{severity}: {part}: {code}: {count}"
        sentences = [f.sentence for f in findings if (f.part, f.code) == (part, code)]
        yield from (f"    {sentence}" for sentence in sentences[:SHOWN])
        if count > SHOWN:
            yield f"    and {count - SHOWN} more, see check.json"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3f}" for value in values) or "-"

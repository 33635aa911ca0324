"""What is wrong with a dataset, and what it holds, found before any GPU is used.

Errors stop training; warnings do not. What annotations themselves get wrong (ids twice, unknown
classes, lines that cannot be read) is found by their readers and told here; the rest by
data/findings.py.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_experiments.data import check_table
from sar_experiments.data.box_sizes import (
    AnchorFit,
    AnchorProposal,
    anchor_fit,
    box_sizes,
    propose_anchors,
)
from sar_experiments.data.findings import Finding, findings_of
from sar_experiments.data.image_scan import HISTOGRAM_BINS, ImageScan, scan_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from sar_experiments.data.annotations import Dataset, Sample
    from sar_experiments.data.radiometry import Radiometry


@dataclass(frozen=True, eq=False)
class PartStatistics:
    """Numbers of one part.

    Attributes:
        images: Images in it.
        empty_share: Share of images without objects.
        objects: Class -> objects.
        most_objects: In one image.
        mean: Per channel, of valid encoded pixels in [0, 1]; for ``radiometry.mean``.
        std: Likewise; for ``radiometry.std``.
        histogram: Shares of encoded pixels in equal bins over [0, 1].
        sizes: (N, 2) width and height of boxes in pixels, as the network sees them.
    """

    images: int
    empty_share: float
    objects: dict[str, int]
    most_objects: int
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
        anchor_ratios: Of the model.
        fit: Of the model's anchors to the training boxes.
        proposal: Anchors that fit better; None where there are too few boxes.
        left_out: Part -> what ``without_bad_samples`` leaves out of it; parts without are missing.
    """

    findings: tuple[Finding, ...]
    parts: dict[str, PartStatistics]
    anchor_sizes: list[list[float]]
    anchor_ratios: list[float]
    fit: AnchorFit
    proposal: AnchorProposal | None
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Those that stop training."""
        return tuple(each for each in self.findings if each.severity == "error")

    def kinds(self) -> dict[tuple[str, str, str], int]:
        """Return severity, part and code -> how many, errors first."""
        found = Counter((each.severity, each.part, each.code) for each in self.findings)
        return dict(sorted(found.items()))

    def as_table(self) -> str:
        """Return what a person needs to know, for a terminal."""
        return check_table.table(self)

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain values, boxes as percentiles."""
        parts = {}
        for name, part in self.parts.items():
            longest = part.sizes.max(axis=1) if len(part.sizes) else np.zeros(0)
            parts[name] = asdict(replace(part, sizes=np.zeros((0, 2)))) | {
                "sizes": check_table.percentiles(longest)
            }
        kinds = [
            {"severity": severity, "part": part, "code": code, "count": count}
            for (severity, part, code), count in self.kinds().items()
        ]
        anchors = {"sizes": self.anchor_sizes, "ratios": self.anchor_ratios, **asdict(self.fit)}
        return {
            "kinds": kinds,
            "findings": [asdict(each) for each in self.findings],
            "left_out": self.left_out,
            "parts": parts,
            "anchors": anchors,
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
    numbers = {name: _statistics(part, scans, settings) for name, part in parts.items()}
    sizes = numbers["train"].sizes
    levels = settings.anchor_sizes
    report = Report(
        findings=findings_of(parts, scans),
        parts=numbers,
        anchor_sizes=levels,
        anchor_ratios=settings.anchor_ratios,
        fit=anchor_fit(sizes, levels, settings.anchor_ratios),
        proposal=propose_anchors(sizes, levels=len(levels), sizes_per_level=len(levels[0])),
    )
    left_out = {name: without_bad_samples(part, report)[1] for name, part in parts.items()}
    return replace(report, left_out={name: each for name, each in left_out.items() if each})


def without_bad_samples(dataset: Dataset, report: Report) -> tuple[Dataset, dict[str, int]]:
    """Return the dataset without the images and boxes that errors name, and how many of each.

    What its reader could not use is not in it anyway and counted as ``records``.
    """
    return without_faulty(dataset, report.errors)


def without_faulty(dataset: Dataset, errors: Iterable[Finding]) -> tuple[Dataset, dict[str, int]]:
    """Likewise, by the errors of any parts."""
    errors = [each for each in errors if each.part == dataset.name]
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
        most_objects=max((len(sample["annotations"]) for sample in dataset.samples), default=0),
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
    """Return mean and standard deviation per channel, and the histogram of all."""
    pixels, histogram = 0, np.zeros(HISTOGRAM_BINS, np.int64)
    total, squares = np.zeros(1), np.zeros(1)
    for scan in scans:
        if scan.pixels:
            pixels += scan.pixels
            total, squares = total + scan.total, squares + scan.squares
            histogram += scan.histogram
    if not pixels:
        return (), (), ()
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0.0))
    shares = histogram / histogram.sum()
    return tuple(mean.tolist()), tuple(std.tolist()), tuple(shares.tolist())

"""Everything that can be wrong with annotated images, one function per kind.

Errors stop training: what they name would spoil it. Warnings do not: they may be meant.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sar_experiments.data.chip import outline_belongs
from sar_experiments.data.label_files import polygon_area

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sar_experiments.data.annotations import BoxAnnotation, Dataset, Sample
    from sar_experiments.data.image_scan import ImageScan

ROUNDING_PX = 1.0
"""Boxes may stick out this far, and two may differ by less and be the same: tools round."""
TINY_PX = 3.0
"""A side below this is hardly a pixel or two of signal."""
AREA_SLACK = 1.01
"""An object cannot cover more than its box; the slack is for rounding."""
OUTLINE_FACTOR = 2.0
"""How far an area may be from its outline's; masks count whole pixels, outlines do not."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        severity: ``error`` or ``warning``.
        code: Kind of fault.
        part: ``train``, ``val`` or ``test``.
        file: Image or annotation file concerned; empty where it is the whole part.
        annotation: Its annotation id; None where it is the image or the part.
        sentence: Says it all.
    """

    severity: str
    code: str
    part: str
    file: str
    annotation: int | None
    sentence: str


def findings_of(
    parts: Mapping[str, Dataset], scans: Mapping[Path, ImageScan]
) -> tuple[Finding, ...]:
    """Return everything that is wrong, errors first."""
    findings: list[Finding] = []
    for name, part in parts.items():
        findings += _of_annotations(name, part)
        findings += _of_images(name, part, scans)
        findings += _of_boxes(name, part)
        findings += _of_classes(name, part)
        findings += _of_levels(name, part, scans)
    findings += _shared_images(parts, scans)
    findings += _shared_scenes(parts)
    findings.sort(key=lambda each: (each.severity, each.part, each.code, each.file))
    return tuple(findings)


def _of_annotations(part: str, dataset: Dataset) -> Iterator[Finding]:
    for fault in dataset.faults:
        yield Finding(fault.severity, fault.code, part, fault.file, None, fault.sentence)


def _of_images(part: str, dataset: Dataset, scans: Mapping[Path, ImageScan]) -> Iterator[Finding]:
    for sample in dataset.samples:
        file = sample["file_name"]
        scan = scans[Path(file)]
        if scan.fault:
            code = "image missing" if scan.is_missing else "image broken"
            yield Finding("error", code, part, file, None, scan.fault)
        elif not scan.pixels and sample["annotations"]:
            sentence = f"{file} has no data in any pixel, and {len(sample['annotations'])} objects"
            yield Finding("error", "image without data", part, file, None, sentence)
        elif (scan.height, scan.width) != (sample["height"], sample["width"]):
            annotated = f"{sample['width']} x {sample['height']}"
            sentence = f"{file} is {scan.width} x {scan.height} px, annotated as {annotated} px"
            yield Finding("error", "image size differs", part, file, None, sentence)


def _of_boxes(part: str, dataset: Dataset) -> Iterator[Finding]:
    for sample in dataset.samples:
        seen: dict[tuple[int, ...], BoxAnnotation] = {}
        for annotation in sample["annotations"]:
            faults = [*_box_faults(sample, annotation), *_area_faults(annotation)]
            faults += _outline_faults(sample, annotation)
            faults += _repetitions(annotation, seen, dataset.classes)
            for severity, code, what in faults:
                file, number = sample["file_name"], annotation["id"]
                sentence = f"{file}: annotation {number} {what}"
                yield Finding(severity, code, part, file, number, sentence)


def _box_faults(sample: Sample, annotation: BoxAnnotation) -> Iterator[tuple[str, str, str]]:
    left, top, right, bottom = annotation["bbox"]
    width, height = sample["width"], sample["height"]
    box = _box(annotation)
    image = f"its image of {width} x {height} px"
    if _is_empty(annotation):
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


def _area_faults(annotation: BoxAnnotation) -> Iterator[tuple[str, str, str]]:
    """Size bins of the evaluation go by area."""
    if _is_empty(annotation):
        return
    left, top, right, bottom = annotation["bbox"]
    area, of_box = annotation["area"], (right - left) * (bottom - top)
    if not 0 < area <= AREA_SLACK * of_box:
        yield "warning", "area wrong", f"has area {area:g} in a box of {of_box:g} px²"
        return
    of_outline = sum(polygon_area(each) for each in annotation.get("segmentation", ()))
    if of_outline > 0 and not 1 / OUTLINE_FACTOR < area / of_outline < OUTLINE_FACTOR:
        yield "warning", "area wrong", f"has area {area:g} in an outline of {of_outline:g} px²"


def _outline_faults(sample: Sample, annotation: BoxAnnotation) -> Iterator[tuple[str, str, str]]:
    """An outline that is elsewhere shows a box of another version of the image, or the wrong one.

    Boxes never follow it, see ``data/chip.py``.
    """
    polygons = annotation.get("segmentation")
    if not polygons or _is_empty(annotation):
        return
    outline = tuple(np.asarray(flat, np.float64).reshape(-1, 2) for flat in polygons)
    box = np.asarray(annotation["bbox"])
    if outline_belongs(box, outline, height=sample["height"], width=sample["width"]):
        return
    points = np.concatenate(outline)
    spanned = "({:g}, {:g}, {:g}, {:g})".format(*points.min(axis=0), *points.max(axis=0))
    what = (
        f"has an outline that spans {spanned} and the box {_box(annotation)}; the box is used,"
        " and the outline only by models that learn masks"
    )
    yield "warning", "outline not of its box", what


def _repetitions(
    annotation: BoxAnnotation, seen: dict[tuple[int, ...], BoxAnnotation], classes: tuple[str, ...]
) -> Iterator[tuple[str, str, str]]:
    if not all(map(math.isfinite, annotation["bbox"])):
        return
    place = tuple(round(side / ROUNDING_PX) for side in annotation["bbox"])
    first = seen.setdefault(place, annotation)
    if first is annotation:
        return
    what = f"repeats the box {_box(first)} of annotation {first['id']}"
    if first["category_id"] == annotation["category_id"]:
        yield "warning", "box twice", what
        return
    names = [classes[each["category_id"]] for each in (first, annotation)]
    yield "warning", "box of two classes", f"{what}: {names[0]} there, {names[1]} here"


def _is_empty(annotation: BoxAnnotation) -> bool:
    left, top, right, bottom = annotation["bbox"]
    return not (right > left and bottom > top)  # NaN included


def _box(annotation: BoxAnnotation) -> str:
    return "({:g}, {:g}, {:g}, {:g})".format(*annotation["bbox"])


_MOSTLY = 0.9
_ALL = 0.999


def _of_levels(part: str, dataset: Dataset, scans: Mapping[Path, ImageScan]) -> Iterator[Finding]:
    """Pixels of another radiometry: all white, as 16 bits under one of 8, or all black."""
    files = {Path(sample["file_name"]) for sample in dataset.samples}
    histograms = [scans[each].histogram for each in files if len(scans[each].histogram)]
    if not histograms:
        return
    shares = np.sum(histograms, axis=0, dtype=np.float64)
    shares /= max(shares.sum(), 1.0)
    for is_so, share, end, cause in (
        (shares[-1] >= _MOSTLY, shares[-1], "white", "numbers too large for it, as 16 bits for 8"),
        (shares[0] >= _ALL, shares[0], "black", "numbers too small for it, as 1 bit for 8"),
    ):
        if is_so:
            sentence = (
                f"{share:.0%} of the pixels of {part} are all but {end} as the network sees them:"
                f" another radiometry, or {cause}; radiometry=NAME, or radiometry.low and high"
            )
            yield Finding("warning", f"pixels {end}", part, "", None, sentence)


def _of_classes(part: str, dataset: Dataset) -> Iterator[Finding]:
    crowds = [each["iscrowd"] for sample in dataset.samples for each in sample["annotations"]]
    if crowds and all(crowds):
        sentence = (
            f"all {len(crowds)} objects of {part} are crowds (iscrowd or difficult), which are"
            " neither learnt nor counted"
        )
        severity = "error" if part == "train" else "warning"
        yield Finding(severity, "only crowds", part, "", None, sentence)
        return
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

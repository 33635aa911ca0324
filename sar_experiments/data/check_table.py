"""The report of a data check as text for a terminal."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sar_experiments.data.checks import PartStatistics, Report
    from sar_experiments.data.findings import Finding

SHOWN = 3
"""Sentences per kind in the table; check.json holds all."""
_GAP = "  "
_ONE = {"images": "image", "boxes": "box", "records": "record"}


def table(report: Report) -> str:
    """Return what a person needs to know: what the data holds, then what is wrong with it."""
    blocks = (_part_lines(report), _size_lines(report), _finding_lines(report))
    return "\n\n".join("\n".join(block) for block in blocks if block)


def percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    """Return the percentiles of numbers, smallest and largest included, by name."""
    if not len(values):
        return {}
    levels = (0, 5, 25, 50, 75, 95, 100)
    return {
        f"p{level}": round(float(value), 1)
        for level, value in zip(levels, np.percentile(values, levels), strict=True)
    }


def _part_lines(report: Report) -> list[str]:
    parts = list(report.parts.values())
    classes = list(parts[0].objects)
    rows = [
        ["", *report.parts],
        ["images", *(f"{part.images:,}" for part in parts)],
        ["without objects", *(f"{part.empty_share:.0%}" for part in parts)],
        ["objects", *(f"{sum(part.objects.values()):,}" for part in parts)],
        ["most in one image", *(f"{part.most_objects:,}" for part in parts)],
    ]
    rows += [[f"  {name}", *(_share(part, name) for part in parts)] for name in classes]
    for channel in range(max(len(part.mean) for part in parts)):
        of = f" {channel + 1}" if len(parts[0].mean) > 1 else ""
        rows.append([f"pixel mean{of}", *(_number(part.mean, channel) for part in parts)])
        rows.append([f"pixel std{of}", *(_number(part.std, channel) for part in parts)])
    return _aligned(rows)


def _share(part: PartStatistics, name: str) -> str:
    count, of = part.objects[name], sum(part.objects.values())
    return f"{count:,}" if len(part.objects) == 1 or not of else f"{count:,} ({count / of:4.0%})"


def _number(values: Sequence[float], channel: int) -> str:
    return f"{values[channel]:.3f}" if channel < len(values) else "-"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of a table, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        _GAP.join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _size_lines(report: Report) -> list[str]:
    sizes = report.parts["train"].sizes
    if not len(sizes):
        return []
    at = percentiles(sizes.max(axis=1))
    lines = [
        f"boxes of train, longest side as the network sees it: {at['p0']:g} to {at['p100']:g} px,"
        f" half of them {at['p25']:g} to {at['p75']:g}, median {at['p50']:g}",
        f"anchors {_plain(report.anchor_sizes)} x {_plain(report.anchor_ratios)}:"
        f" {report.fit.reached_share:.0%} of the boxes overlap one by half,"
        f" mean overlap {report.fit.mean_iou:.2f}",
    ]
    found = report.proposal
    if found is not None and found.fit.mean_iou > report.fit.mean_iou:
        lines += [
            f"k-means finds anchors with {found.fit.reached_share:.0%} and"
            f" {found.fit.mean_iou:.2f}; to use them:",
            f"  'model.anchor_sizes={_plain(found.sizes)}'"
            f" 'model.anchor_ratios={_plain(found.ratios)}'",
        ]
    return lines


def _plain(values: object) -> str:
    return str(values).replace(" ", "")


def _finding_lines(report: Report) -> list[str]:
    if not report.findings:
        return ["nothing wrong was found"]
    sentences: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for each in report.findings:
        sentences[each.severity, each.part, each.code].append(each.sentence)
    warnings = len(report.findings) - len(report.errors)
    lines = [f"{_count(len(report.errors), 'error')}, {_count(warnings, 'warning')}"]
    for (severity, part, code), count in report.kinds().items():
        lines.append(f"{severity:<7}  {part}: {code}: {count:,}")
        lines += [f"         {sentence}" for sentence in sentences[severity, part, code][:SHOWN]]
        if count > SHOWN:
            lines.append(f"         and {count - SHOWN:,} more, see check.json")
    return [*lines, *_ways_out(report)]


def _ways_out(report: Report) -> Iterator[str]:
    if not report.left_out:
        return
    told = "; ".join(
        f"{part}: {', '.join(_count(number, _ONE[name]) for name, number in counts.items())}"
        for part, counts in report.left_out.items()
    )
    yield "errors stop a training; mend them, or leave out what they name"
    yield f"  usecase.ignore_bad_samples=true   # leaves out {told}"


def _count(number: int, name: str) -> str:
    plural = name + ("es" if name.endswith("x") else "s")
    return f"{number:,} {name if number == 1 else plural}"


def summary(findings: Sequence[Finding]) -> str:
    """Return how many of each kind there are, in one line."""
    counts: dict[str, int] = defaultdict(int)
    for each in findings:
        counts[f"{each.part}: {each.code}"] += 1
    return ", ".join(f"{kind} {count:,}" for kind, count in sorted(counts.items()))

"""A report as one HTML page that loads nothing: summary, tables, curves, pictures."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from sar_experiments.report import figures
from sar_experiments.report.analysis import FALSE, HIT, MISS, SLIGHT_IOU
from sar_experiments.report.comparison import (
    counted,
    name_of,
    number,
    sentences,
    short_name_of,
)
from sar_experiments.report.crops import Box
from sar_experiments.report.markup import table, without_repeats
from sar_experiments.report.numbers import Footing
from sar_experiments.report.run_table import explained, runs_table
from sar_experiments.report.style import STYLE
from sar_experiments.report.tables import command, device
from sar_experiments.thresholds import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sar_experiments.report.analysis import Analysis, Measured
    from sar_experiments.report.comparison import Gallery, Section
    from sar_experiments.report.crops import Crop
    from sar_experiments.report.runner import Report
    from sar_experiments.report.truth import PixelSize, Truth

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Content security policy: whatever a name smuggled in, nothing is run and nothing is fetched."""
_TITLES = {
    MISS: "Misses, largest objects first",
    FALSE: "False alarms, most certain first",
    HIT: "Hits, from the most certain to the least",
}


def as_page(report: Report, *, title: str, made: str) -> str:
    """Return the page.

    Args:
        report: What to show.
        title: Names the source.
        made: How and when the report was made, one line.
    """
    body = [f"<h1>{escape(title)}</h1>", f'<p class="made">{escape(made)}</p>']
    if len(report.sections) > 1:
        body.append(
            f'<p class="note">The runs were measured on {len(report.sections)} different sets of'
            " images: numbers of one section cannot be compared with those of another.</p>"
        )
    for section in report.sections:
        body += _section(section, report)
    if not report.sections:
        body.append("<p>No run came to an end that could be compared.</p>")
    body += [*_not_compared(report), *_origins(report)]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _section(section: Section, report: Report) -> Iterator[str]:
    said = sentences(section, metric=report.metric, part=report.part)
    name = f"Data {section.name}" if section.name else "Summary"
    yield f"<h2>{escape(name)}</h2>"
    yield f'<p class="lead">{escape(said[0])}</p>'
    if said[1:]:
        yield f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in said[1:])}</ul>"
    yield "".join(f'<p class="note">{escape(note)}</p>' for note in section.notes)
    for footing in section.rankings:
        yield from runs_table(section, footing, report.part, report.metric)
    yield from explained(section, report.part)
    if not section.analyses:
        return
    yield from figures.curves(section, report.metric)
    yield from _sizes(section)
    yield from _classes(section)
    yield from _noticed(section)
    for gallery in section.galleries:
        yield from _gallery(gallery, section)


def _footings(section: Section) -> Iterator[tuple[str, list[Measured]]]:
    """Yield what the analyses say on each footing, with its name where there are several."""
    for footing in section.rankings:
        views = section.views(footing)
        if views:
            yield f", {footing.words}" if section.is_mixed else "", views


def _sizes(section: Section) -> Iterator[str]:
    pixel = section.truth.pixel if section.truth is not None else None
    for words, views in _footings(section):
        yield f"<h3>By size of the object{words}</h3>"
        head = ["px", *(["m"] if pixel is not None else []), "objects", "run", "found"]
        rows = without_repeats(_size_rows(views, pixel), columns=len(head) - 2)
        yield table([*head, "recall", "AP50", "AP"], rows, words=(len(head) - 2,))
    origin = f"; metres by {pixel.origin}, {pixel.mean_m:g} m per pixel" if pixel else ""
    yield (
        '<p class="small">Size is the root of the box area; sizes without objects are left out.'
        " Found and recall are at the thresholds; AP counts detections of another size only where"
        f" they hit{escape(origin)}.</p>"
    )


def _size_rows(views: Sequence[Measured], pixel: PixelSize | None) -> list[list[str]]:
    rows: list[list[str]] = []
    for place, size in enumerate(views[0].sizes):
        if not size.truths:
            continue
        size_in = [_range(size.low_px, size.high_px, 1.0)]
        if pixel is not None:
            size_in.append(_range(size.low_px, size.high_px, pixel.mean_m))
        for view in views:
            each = view.sizes[place]
            row = [*size_in, str(each.truths), short_name_of(view.run), str(each.hits)]
            rows.append([*row, *(number(value) for value in (each.recall, each.ap50, each.ap))])
    return rows


def _range(low: float, high: float, factor: float) -> str:
    if math.isinf(high):
        return f"{low * factor:g} or more"
    return f"below {high * factor:g}" if low == 0 else f"{low * factor:g} to {high * factor:g}"


def _classes(section: Section) -> Iterator[str]:
    assert section.truth is not None
    if section.is_mixed:
        yield from _found_of_classes(section.views(Footing.class_agnostic))
    views = section.views(Footing.per_class)
    if not views:
        return
    yield "<h3>By class</h3>"
    head = ["class", "objects", "run", "from score", "detections"]
    head += ["AP50", "AP", "precision", "recall", "F1"]
    rows = _class_rows(views, section.truth.part.classes)
    yield table(head, without_repeats(rows, columns=2), words=(0, 2))
    for view in views:
        for doubt in view.metrics.thresholds.doubts().values():
            yield f'<p class="small">{escape(f"{short_name_of(view.run)}: {doubt}.")}</p>'
    network = next((each for each in section.analyses if not each.run.is_cfar), None)
    if network is not None and network.confusion is not None:
        yield from _confusion(network, section.truth)


def _class_rows(views: Sequence[Measured], classes: Sequence[str]) -> list[list[str]]:
    rows = []
    for index, name in enumerate(classes):
        for view in views:
            each = view.metrics.per_class[index]
            numbers = (each.ap50, each.ap, each.precision, each.recall, each.f1)
            row = [name, str(each.truths), short_name_of(view.run)]
            row += [number(each.threshold), str(each.detections)]
            rows.append([*row, *(number(value) for value in numbers)])
    return rows


def _found_of_classes(views: Sequence[Measured]) -> Iterator[str]:
    """Say how many objects of each class are found class-agnostic; precision has no class there."""
    if not views:
        return
    rows = []
    for name, (_, count) in views[0].found.items():
        for view in views:
            hits, _ = view.found[name]
            recall = number(hits / count if count else None)
            rows.append([name, str(count), short_name_of(view.run), str(hits), recall])
    yield "<h3>Objects of each class that are found, class-agnostic</h3>"
    head = ["class", "objects", "run", "found", "recall"]
    yield table(head, without_repeats(rows, columns=2), words=(0, 2))


def _noticed(section: Section) -> Iterator[str]:
    """Tell loose boxes from what is not seen at all."""
    assert section.truth is not None
    objects = section.truth.objects
    slight = f"at IoU {SLIGHT_IOU:g}"
    head = ["run", "found", "recall", "false alarms", f"found {slight}", "recall", "false alarms"]
    for words, views in _footings(section):
        rows = []
        for view in views:
            strict = (view.metrics.hits, view.metrics.false_alarms)
            row = [short_name_of(view.run)]
            for hits, false_alarms in (strict, view.noticed):
                recall = number(hits / objects if objects else None)
                row += [f"{hits:,}", recall, f"{false_alarms:,}"]
            rows.append(row)
        yield f"<h3>If a slight overlap were enough{words}</h3>"
        yield table(head, rows, words=(0,))
    yield (
        '<p class="small">At the same thresholds. What is found at the slight overlap alone was'
        " noticed, but its box is loose: a matter of boxes, not of detection.</p>"
    )


def _confusion(analysis: Analysis, truth: Truth) -> Iterator[str]:
    assert analysis.confusion is not None
    names = truth.part.classes
    rows = [
        [name, *(str(count) for count in counts)]
        for name, counts in zip((*names, "no object"), analysis.confusion.tolist(), strict=True)
    ]
    rows[-1][-1] = ""
    yield f"<h4>Confusion matrix: {escape(name_of(analysis.run))}</h4>"
    yield table(["is", *names, "missed"], rows, words=(0,))
    yield '<p class="small">Rows: what it is; columns: what was found, at the thresholds.</p>'


def _gallery(gallery: Gallery, section: Section) -> Iterator[str]:
    truth, view = section.truth, gallery.view
    pixel_m = truth.pixel.mean_m if truth is not None and truth.pixel is not None else None
    words = f", {view.footing.words}" if section.is_mixed else ""
    scores = [each.threshold for each in view.metrics.per_class]
    told = listed(dict(zip((each.name for each in view.metrics.per_class), scores, strict=True)))
    yield f"<h3>Pictures: {escape(name_of(view.run))}{words}</h3>"
    yield (
        '<p class="small">Boxes: <b class="c-hit">hit</b>, <b class="c-miss">missed object</b>,'
        ' <b class="c-false">false alarm</b>, <b class="c-truth">truth of a hit</b>; at the'
        f" {'threshold' if len(set(scores)) == 1 else 'thresholds'} {escape(told)}. The thick one"
        " is what the picture is about.</p>"
    )
    for kind, crops in gallery.crops.items():
        shown, count = len(crops), gallery.counts[kind]
        of_all = f"{shown} of {count:,}" if shown < count else f"{count:,}"
        yield f"<h4>{_TITLES[kind]} ({of_all})</h4>"
        if crops:
            figures_of = "".join(_picture(each, pixel_m) for each in crops)
            yield f'<div class="gallery">{figures_of}</div>'


def _picture(crop: Crop, pixel_m: float | None) -> str:
    side = crop.side_px
    boxes = "".join(_box(box) for box in sorted(crop.boxes, key=lambda box: box.is_meant))
    size = f"{crop.case.size_px:.0f} px"
    if pixel_m is not None:
        size += f", {crop.case.size_px * pixel_m:.0f} m"
    score = "" if crop.case.score is None else f" {crop.case.score:.2f}"
    file = crop.case.sample["file_name"].rpartition("/")[2]
    about = f"{crop.case.class_name}{score}, {size}".strip()
    return (
        f'<figure><svg viewBox="0 0 {side:g} {side:g}" role="img">'
        f"<title>{escape(crop.case.sample['file_name'])}</title>"
        f'<image href="data:image/png;base64,{crop.png}" width="{side:g}" height="{side:g}"/>'
        f"{boxes}</svg><figcaption>{escape(about)}<br>"
        f'<span class="file">{escape(file)}</span></figcaption></figure>'
    )


def _box(box: Box) -> str:
    left, top, right, bottom = box.corners
    meant = " meant" if box.is_meant else ""
    return (
        f'<rect class="box {box.kind}{meant}" x="{left:.1f}" y="{top:.1f}"'
        f' width="{max(0.0, right - left):.1f}" height="{max(0.0, bottom - top):.1f}"/>'
    )


def _not_compared(report: Report) -> Iterator[str]:
    found = report.found
    if not (found.others or found.unread or found.left_out):
        return
    yield "<h2>Not compared</h2>"
    rows = [[run.name, run.state, run.label, run.result.why] for run in found.others]
    rows += [[str(folder), "unreadable", "", "result.json is broken"] for folder in found.unread]
    if rows:
        yield table(["run", "state", "what", "why"], rows, words=range(4))
    if found.left_out:
        told = ", ".join(f"{count} of task={task}" for task, count in found.left_out.items())
        yield f'<p class="small">Runs that measure nothing were left out: {escape(told)}.</p>'


def _origins(report: Report) -> Iterator[str]:
    yield "<h2>Computed from</h2>"
    shown = {a.run.name: a.run for section in report.sections for a in section.analyses}
    if not shown:
        shown = {
            setting.best.name: setting.best
            for section in report.sections
            for setting in section.settings[:1]
        }
    for run in shown.values():
        result = run.result
        versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
        rows: Sequence[tuple[str, str]] = (
            ("folder", str(run.folder)),
            ("command", command(run)),
            ("config", f"{result.config_hash}, seed {run.seed}"),
            ("commit", result.git_commit or "not known"),
            ("versions", versions),
            ("computed", f"{result.started}, {result.seconds:,.0f} s, {device(run)}"),
        )
        told = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in rows)
        yield f"<details><summary>{escape(run.name)}</summary><dl>{told}</dl></details>"
    for section in report.sections:
        if section.truth is not None:
            data = f"Data {section.name}: " if section.name else "Data: "
            objects = counted(section.truth.objects, "object")
            images = counted(len(section.truth.part.samples), "image")
            source = f"{data}{section.truth.part.source}, {images}, {objects}, {section.truth.key}"
            yield f'<p class="small">{escape(source)}</p>'
    yield '<p class="small">report.json holds all runs with all their numbers.</p>'

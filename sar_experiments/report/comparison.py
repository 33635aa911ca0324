"""What a report says: runs in sections of one data set each, and sentences that put it plainly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sar_experiments.report.numbers import wilson

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sar_experiments.report.analysis import Analysis
    from sar_experiments.report.crops import Crop
    from sar_experiments.report.numbers import Setting
    from sar_experiments.report.runs import Run
    from sar_experiments.report.truth import Truth

FEW_OBJECTS = 100
_SHORT = 60  # letters
PART_NAMES = {"val": "validation", "test": "test"}


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures of one run.

    Attributes:
        analysis: Of the run.
        crops: Kind of case -> its pictures.
        counts: Kind of case -> how many there are in all.
    """

    analysis: Analysis
    crops: dict[str, list[Crop]]
    counts: dict[str, int]


@dataclass(frozen=True, eq=False)
class Section:
    """Runs that were measured on the same images in the same way.

    Attributes:
        name: A letter where there are several sections.
        truth: The images; None where they cannot be read.
        settings: Best first.
        analyses: Of the best run of the best settings, and of the best CFAR.
        galleries: Of the best network and the best CFAR.
        seen: Run name -> how many of the images it learnt from as well; None if nothing tells.
        notes: What is missing or doubtful.
    """

    name: str
    truth: Truth | None
    settings: tuple[Setting, ...]
    analyses: tuple[Analysis, ...]
    galleries: tuple[Gallery, ...]
    seen: Mapping[str, int | None]
    notes: tuple[str, ...]


def sentences(section: Section, *, metric: str, part: str) -> list[str]:
    """Return what a section found, best run first, with what makes it doubtful."""
    best = section.settings[0]
    if best.spread(metric) is None:
        return [f"No run has {metric} on the {PART_NAMES[part]} part."]
    found = [_best(best, section.truth, metric, part)]
    found += _at_threshold(best, section.truth)
    found += _runner_up(section.settings, metric)
    found += _flattered(section, metric, part)
    found += _baseline(section, metric)
    return found


def name_of(run: Run) -> str:
    """Return what a run is called in sentences, legends and headings."""
    label = run.label
    if run.is_cfar:
        label = f"CFAR {run.label}" if run.changes else "CFAR"
    return label if label == run.name else f"{label} ({run.name})"


def short_name_of(run: Run) -> str:
    """Return likewise for a cell of a table: where that is long, the run's own name."""
    told = name_of(run)
    return told if len(told) <= _SHORT else run.name


def number(value: float | None, digits: int = 3) -> str:
    """Return a number for people."""
    return "-" if value is None else f"{value:.{digits}f}"


def rate(value: float | None) -> str:
    """Return a rate that may be large or small."""
    return "-" if value is None else "0" if value == 0 else f"{value:.3g}"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _best(best: Setting, truth: Truth | None, metric: str, part: str) -> str:
    value = best.values[best.best.name].get(metric)
    where = f"the {PART_NAMES[part]} part"
    if truth is not None:
        images = counted(len(truth.part.samples), "image")
        where += f": {images} with {counted(truth.objects, 'object')}"
    spread = best.spread(metric)
    seeds = ""
    if spread is not None and spread.deviation is not None:
        seeds = (
            f", the best of {spread.count} seeds (mean {number(spread.mean)},"
            f" standard deviation {number(spread.deviation)})"
        )
    return f"Best: {name_of(best.best)} with {metric} {number(value)}{seeds}, measured on {where}."


def _at_threshold(best: Setting, truth: Truth | None) -> Iterator[str]:
    values = best.values[best.best.name]
    hits, false_alarms = values["hits"], values["false_alarms"]
    if truth is None or hits is None or false_alarms is None or not truth.objects:
        return
    low, high = wilson(round(hits), truth.objects)
    per_km2 = values["false_alarms_per_km2"]
    area = "" if per_km2 is None else f", {rate(per_km2)} per km²"
    yield (
        f"At its threshold of the best F1 ({number(values['threshold'])}) it finds {hits:.0f} of"
        f" {counted(truth.objects, 'object')} (recall {number(values['recall'])},"
        f" 95 % confidence {number(low, 2)} to {number(high, 2)}) with"
        f" {counted(round(false_alarms), 'false alarm')}"
        f" ({rate(values['false_alarms_per_image'])} per image{area})."
    )
    if truth.objects < FEW_OBJECTS:
        yield (
            f"{counted(truth.objects, 'object')} are few: one object more or less is"
            f" {number(1 / truth.objects)} of recall, and smaller differences mean nothing."
        )


def _runner_up(settings: Sequence[Setting], metric: str) -> Iterator[str]:
    rivals = [each for each in settings[1:] if not each.is_cfar]
    if settings[0].is_cfar or not rivals:
        return
    first, second = settings[0].spread(metric), rivals[0].spread(metric)
    if first is None or second is None:
        return
    behind = f"The next setting, {name_of(rivals[0].best)}, is {number(first.mean - second.mean)}"
    deviations = [each.deviation for each in (first, second) if each.deviation is not None]
    if not deviations:
        yield f"{behind} behind; with one seed each, how much of that is chance is not known."
    elif first.mean - second.mean < max(deviations):
        yield (
            f"{behind} behind in the mean, less than the standard deviation over seeds"
            f" ({number(max(deviations))}): the order of the two may be chance."
        )
    else:
        yield (
            f"{behind} behind in the mean; the standard deviation over seeds is"
            f" {number(max(deviations))}."
        )


def _flattered(section: Section, metric: str, part: str) -> Iterator[str]:
    run, truth = section.settings[0].best, section.truth
    seen = section.seen[run.name]
    if truth is not None and seen:
        yield (
            f"{seen} of the {len(truth.part.samples)} images are training images too:"
            " the numbers say how well they were learnt by heart, not what new images would give."
        )
    networks = sum(not each.is_cfar for each in section.settings)
    if part == "test" and networks > 1 and not run.is_cfar:
        yield f"It is the best of {networks} settings on these very images, which flatters it."
    if part == "val" and run.result.task == "train":
        test = run.result.metrics.get(f"test/{metric}")
        told = f"; on the test part it has {metric} {number(test)}" if test is not None else ""
        yield f"Its checkpoint was chosen on these images, which flatters it{told}."


def _baseline(section: Section, metric: str) -> Iterator[str]:
    settings, truth = section.settings, section.truth
    classic = next((each for each in settings if each.is_cfar), None)
    if classic is None:
        yield (
            "No CFAR run is among them: task=evaluate model=cfar on the same use case makes the"
            " classic baseline."
        )
        return
    best, spread = settings[0].spread(metric), classic.spread(metric)
    if classic is not settings[0]:
        value = None if spread is None else spread.mean
        several = truth is not None and len(truth.part.classes) > 1
        alike = " It calls everything by one name: compare class by class." if several else ""
        yield f"The classic CFAR detector has {metric} {number(value)} on the same images.{alike}"
        return
    network = next((each for each in settings if not each.is_cfar), None)
    spread = None if network is None else network.spread(metric)
    if network is not None and best is not None and spread is not None:
        yield (
            "The classic CFAR detector is the best here: the best network,"
            f" {name_of(network.best)}, is {number(best.mean - spread.mean)} behind."
        )

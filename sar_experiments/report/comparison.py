"""What a report says: runs in sections of one data set each, and sentences that put it plainly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sar_experiments.report.numbers import NUMBERS, Footing, wilson
from sar_experiments.thresholds import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sar_experiments.report.analysis import Analysis, Measured
    from sar_experiments.report.crops import Crop
    from sar_experiments.report.numbers import Setting, Spread
    from sar_experiments.report.runs import Run
    from sar_experiments.report.truth import Truth

FEW_OBJECTS = 100
_SHORT = 60  # letters
PART_NAMES = {"val": "validation", "test": "test"}


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures of one run.

    Attributes:
        view: Of the run.
        crops: Kind of case -> its pictures.
        counts: Kind of case -> how many there are in all.
    """

    view: Measured
    crops: dict[str, list[Crop]]
    counts: dict[str, int]


@dataclass(frozen=True, eq=False)
class Section:
    """Runs that were measured on the same images in the same way.

    Attributes:
        name: A letter where there are several sections.
        truth: The images; None where they cannot be read.
        rankings: Footing -> settings that have numbers on it, best first; several footings where a
            detector names no classes and the images have some. That of all detectors comes first.
        analyses: Of the best run of the best settings, and of the best CFAR.
        galleries: Of the best network and the best CFAR, on the first footing.
        seen: Run name -> how many of the images it learnt from as well; None if nothing tells.
        notes: What is missing or doubtful.
    """

    name: str
    truth: Truth | None
    rankings: Mapping[Footing, tuple[Setting, ...]]
    analyses: tuple[Analysis, ...]
    galleries: tuple[Gallery, ...]
    seen: Mapping[str, int | None]
    notes: tuple[str, ...]

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Return all settings, those that name classes first where there are any, best first."""
        named = self.rankings.get(Footing.per_class, ())
        rest = self.rankings.get(Footing.class_agnostic, ())
        return (*named, *(each for each in rest if each not in named))

    def views(self, footing: Footing) -> list[Measured]:
        """Return what the analyses say on a footing."""
        return [each.views[footing] for each in self.analyses if footing in each.views]

    @property
    def is_mixed(self) -> bool:
        """Whether a detector without classes is among them, where there are classes."""
        return Footing.class_agnostic in self.rankings


def ranked(
    settings: Sequence[Setting], *, metric: str, several: bool
) -> dict[Footing, tuple[Setting, ...]]:
    """Return the settings by footing, best first: one footing where all have the same numbers."""
    if not several or all(each.names_classes for each in settings):
        return {Footing.per_class: tuple(settings)}
    agnostic = Footing.class_agnostic.of(metric)
    found = {
        Footing.class_agnostic: tuple(sorted(settings, key=lambda s: s.standing(agnostic).place()))
    }
    named = tuple(each for each in settings if each.names_classes)
    return found | ({Footing.per_class: named} if named else {})


def sentences(section: Section, *, metric: str, part: str) -> list[str]:
    """Return what a section found, best run first, with what makes it doubtful."""
    if not section.is_mixed:
        return _on_one_footing(section, Footing.per_class, metric, part)
    found = _class_agnostic(section, metric, part)
    if Footing.per_class in section.rankings:
        return [*found, *_on_one_footing(section, Footing.per_class, metric, part)]
    return [*found, *_on_one_footing(section, Footing.class_agnostic, metric, part)]


def _on_one_footing(section: Section, footing: Footing, metric: str, part: str) -> list[str]:
    settings, own = section.rankings[footing], footing.of(metric)
    best = settings[0]
    words = f", {footing.words}," if section.is_mixed else ""
    if best.spread(own) is None:
        return [f"No run has {metric}{words} on the {PART_NAMES[part]} split."]
    found = [_best(best, section, footing, metric, part)]
    found += _at_threshold(best, section.truth, footing)
    found += _runner_up(settings, own)
    found += _lost_seeds(settings, own)
    found += _flattered(section, best, metric, part)
    if not section.is_mixed:
        found += _baseline(section, metric)
    return found


def _class_agnostic(section: Section, metric: str, part: str) -> list[str]:
    """Compare a detector without classes with the others on the footing that all have."""
    settings, own = section.rankings[Footing.class_agnostic], Footing.class_agnostic.of(metric)
    unnamed = next(each for each in settings if not each.names_classes)
    named = next((each for each in settings if each.names_classes), None)
    who = "a CFAR" if unnamed.is_cfar else name_of(unnamed.best)
    if named is None:
        return [f"All detectors here name no classes: {metric} is class-agnostic."]
    ours, theirs = named.spread(own), unnamed.spread(own)
    if ours is None or theirs is None:
        lacking = name_of((named if ours is None else unnamed).best)
        return [f"{lacking} has no class-agnostic {metric}: there is nothing to compare."]
    pairs = [(ours, named), (theirs, unnamed)]
    (first, winner), (second, loser) = sorted(pairs, key=lambda pair: -pair[0].mean)
    lead = number(first.mean - second.mean)
    is_chance = first.deviation is not None and first.mean - second.mean < first.deviation
    told = [
        f"Class-agnostic, as {who} names no classes: {name_of(winner.best)} has {metric}"
        f" {_mean(first)}, {name_of(loser.best)} {_mean(second)}, {lead} less."
        + (" That is below the standard deviation over seeds." if is_chance else "")
    ]
    for each in (winner, loser):
        told += _at_threshold(each, section.truth, Footing.class_agnostic, name=name_of(each.best))
    return told


def _mean(spread: Spread) -> str:
    if spread.deviation is None:
        return number(spread.mean)
    return f"{number(spread.mean)} (mean of {spread.count} seeds)"


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


def _best(best: Setting, section: Section, footing: Footing, metric: str, part: str) -> str:
    own, truth = footing.of(metric), section.truth
    value = best.values[best.best.name].get(own)
    where = f"the {PART_NAMES[part]} split"
    if truth is not None:
        images = counted(len(truth.part.samples), "image")
        where += f": {images} with {counted(truth.objects, 'object')}"
    spread = best.spread(own)
    seeds = ""
    if spread is not None and spread.deviation is not None:
        seeds = (
            f", the best of {spread.count} seeds (mean {number(spread.mean)},"
            f" standard deviation {number(spread.deviation)})"
        )
    lead = f"Best {footing.words}" if section.is_mixed else "Best"
    return (
        f"{lead}: {name_of(best.best)} with {metric} {number(value)}{seeds}, measured on {where}."
    )


def _at_threshold(
    best: Setting, truth: Truth | None, footing: Footing, *, name: str = ""
) -> Iterator[str]:
    all_of_them = best.values[best.best.name]
    values = {each: all_of_them[footing.of(each)] for each in NUMBERS}
    hits, false_alarms = values["hits"], values["false_alarms"]
    if truth is None or hits is None or false_alarms is None or not truth.objects:
        return
    low, high = wilson(round(hits), truth.objects)
    per_km2 = values["false_alarms_per_km2"]
    area = "" if per_km2 is None else f", {rate(per_km2)} per km²"
    yield (
        f"{name or 'It'} finds {hits:.0f} of"
        f" {counted(truth.objects, 'object')} (recall {number(values['recall'])},"
        f" 95 % confidence {number(low, 2)} to {number(high, 2)}) with"
        f" {counted(round(false_alarms), 'false alarm')}"
        f" ({rate(values['false_alarms_per_image'])} per image{area})"
        f"{_from_score(all_of_them, footing)}."
    )
    if name:
        return
    if truth.objects < FEW_OBJECTS:
        yield (
            f"{counted(truth.objects, 'object')} are few: one object more or less is"
            f" {number(1 / truth.objects)} of recall, and smaller differences mean nothing."
        )


def _from_score(values: Mapping[str, float | None], footing: Footing) -> str:
    if footing is Footing.class_agnostic:
        score = values.get(footing.of("threshold"))
        return "" if score is None else f", counted from score {score:.3g} on"
    kept = {k: v for k, v in values.items() if k.split("/")[0] == "threshold" and v is not None}
    scores = {name.removeprefix("threshold/"): score for name, score in kept.items()}
    return f", counted from score {listed(scores)} on" if scores else ""


def _runner_up(settings: Sequence[Setting], metric: str) -> Iterator[str]:
    whole = settings[0].standing(metric).all_finished
    rivals = [
        each
        for each in settings[1:]
        if not each.is_cfar and each.standing(metric).all_finished is whole
    ]
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


def _lost_seeds(settings: Sequence[Setting], metric: str) -> Iterator[str]:
    """Name the best setting if seeds of it failed, and the first one that did so instead of it."""
    best = settings[0].standing(metric)
    if best.failed:
        yield (
            f"Not all of its seeds finished ({best.failures}), nor did those of any other setting:"
            " what is left of them flatters it."
        )
        return
    for each in settings[1:]:
        standing = each.standing(metric)
        if standing.mean is not None and best.mean is not None and standing.mean > best.mean:
            finished = counted(standing.n, "seed")
            yield (
                f"{name_of(each.best)} has a higher mean, {number(standing.mean)} over {finished}"
                f" that finished, and stands below since others did not: {standing.failures}."
            )
            return


def _flattered(section: Section, best: Setting, metric: str, part: str) -> Iterator[str]:
    run, truth = best.best, section.truth
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
        told = f"; on the test split it has {metric} {number(test)}" if test is not None else ""
        yield f"Its checkpoint was chosen on these images, which flatters it{told}."


def _baseline(section: Section, metric: str) -> Iterator[str]:
    """Compare with the CFAR where all are on the same footing."""
    settings = section.rankings[Footing.per_class]
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
        yield f"The classic CFAR detector has {metric} {number(value)} on the same images."
        return
    network = next((each for each in settings if not each.is_cfar), None)
    spread = None if network is None else network.spread(metric)
    if network is not None and best is not None and spread is not None:
        yield (
            "The classic CFAR detector is the best here: the best network,"
            f" {name_of(network.best)}, is {number(best.mean - spread.mean)} behind."
        )

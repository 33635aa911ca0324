"""FRONT DOOR report(): figures and tables from run folders; reads files, imports no torch."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sar_experiments.config import from_plain
from sar_experiments.data.radiometry import Radiometry
from sar_experiments.errors import SarError
from sar_experiments.report.analysis import (
    FALSE,
    HIT,
    MISS,
    analyse,
    cases,
    class_agnostic_numbers,
    spread_evenly,
)
from sar_experiments.report.comparison import Gallery, Section, ranked
from sar_experiments.report.crops import crops_of
from sar_experiments.report.numbers import (
    Footing,
    chose_on_test,
    grouped,
    have_several_classes,
    numbers_of,
)
from sar_experiments.report.runs import find_runs, told_apart
from sar_experiments.report.truth import Truth, Truths, pixel_of_cfar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sar_experiments.config import Config
    from sar_experiments.report.analysis import Analysis, Measured
    from sar_experiments.report.runs import Found, Run

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, eq=False)
class Report:
    """All that a report says.

    Attributes:
        found: The runs.
        sections: One per data set, that of most runs first.
        metric: What the order follows.
        part: ``val`` or ``test``.
    """

    found: Found
    sections: tuple[Section, ...]
    metric: str
    part: str


def report(config: Config, progress: Callable[[int, int], None] | None = None) -> Report:
    """Compare the runs of ``config.source``.

    Args:
        config: Its ``report`` says how, its ``evaluation.metric`` by what.
        progress: Called with the number of runs that were looked into, and that of all such.

    Raises:
        ConfigError: There is no run.
    """
    metric, part = config.evaluation.metric, config.report.part.value
    found = find_runs(config.source, metric=metric, stalled_s=config.monitor.stalled_s)
    truths = Truths(config)
    by_data: dict[str, list[Run]] = {}
    read: dict[str, Truth | str] = {}
    seen: dict[str, int | None] = {}
    for run in found.measured:
        truth = truths.of(run)
        key = truth.key if isinstance(truth, Truth) else truth
        by_data.setdefault(key, []).append(run)
        read.setdefault(key, truth)
        seen[run.name] = truths.seen(run, truth) if isinstance(truth, Truth) else None
    ordered = sorted(by_data, key=lambda key: -len(by_data[key]))
    sections = [
        _section(_name(index, len(ordered)), (by_data[key], found.others), read[key], seen, config)
        for index, key in enumerate(ordered)
    ]
    total = sum(len(_to_look_into(s, config)) for s in sections if s.truth is not None)
    done = itertools.count(1)

    def on_run() -> None:
        if progress is not None:
            progress(next(done), total)

    detailed = tuple(_detailed(section, config, on_run) for section in sections)
    return Report(found, detailed, metric, part)


def _name(index: int, count: int) -> str:
    if count == 1:
        return ""
    return _LETTERS[index] if index < len(_LETTERS) else str(index + 1)


def _section(
    name: str,
    found: tuple[Sequence[Run], Sequence[Run]],
    truth: Truth | str,
    seen: Mapping[str, int | None],
    config: Config,
) -> Section:
    """Return a section of runs that completed; the others tell which seeds their settings lost."""
    runs, others = found
    metric, part = config.evaluation.metric, config.report.part.value
    known = truth if isinstance(truth, Truth) else None
    if known is not None and known.pixel is None:
        known = replace(known, pixel=pixel_of_cfar(runs))
    prefix = "" if part == "val" else f"{part}/"
    runs = told_apart(runs)
    several = have_several_classes(runs, known)
    again, notes = _measured_again(runs, known, config) if several else ({}, [])
    values = {
        run.name: numbers_of(run, known, prefix=prefix, several=several, again=again.get(run.name))
        for run in runs
    }
    settings = grouped(runs, values, metric=metric, others=others)
    rankings = ranked(settings, metric=metric, several=several)
    if known is None:
        about = f"{runs[0].name} and {len(runs) - 1} more" if len(runs) > 1 else runs[0].name
        why = f"No curves, sizes and pictures for {about}: {truth}"
        return Section(name, None, rankings, (), (), seen, (why,))
    if known.missing:
        notes.append(f"{known.missing} image files are not there: {known.part.images}")
    return Section(name, known, rankings, (), (), seen, (*notes, *_outdated(runs, prefix)))


def _measured_again(
    runs: Sequence[Run], truth: Truth | None, config: Config
) -> tuple[dict[str, dict[str, float | None]], list[str]]:
    """Return what older versions did not record and a comparison with a CFAR needs, and notes."""
    part = config.report.part.value
    recorded = Footing.class_agnostic.of("AP50" if part == "val" else f"{part}/AP50")
    found, notes = {}, []
    if truth is not None and not all(run.names_classes for run in runs):
        for run in (each for each in runs if recorded not in each.result.metrics):
            try:
                evaluation = from_plain(run.config, defaults=config).evaluation
                found[run.name] = class_agnostic_numbers(run, truth, evaluation, part=part)
            except (SarError, OSError, ValueError) as error:
                notes.append(f"No class-agnostic numbers for {run.name}: {error}")
    return found, notes


def _outdated(runs: Sequence[Run], prefix: str) -> Iterator[str]:
    """Name the runs whose precision and recall say more than they can."""
    named = ", ".join(run.name for run in runs if chose_on_test(run, prefix))
    if named:
        yield (
            "Precision, recall and F1 are left out where an older version chose the threshold on"
            f" the test split itself; task=evaluate measures them at validation's: {named}"
        )


def _detailed(section: Section, config: Config, on_run: Callable[[], None]) -> Section:
    """Return a section with curves and pictures, where its truth is known."""
    truth, notes = section.truth, list(section.notes)
    if truth is None:
        return section
    analyses = []
    for run in _to_look_into(section, config):
        made = _analysis(run, truth, tuple(section.rankings), config)
        on_run()
        if isinstance(made, str):
            notes.append(made)
            continue
        analyses.append(made)
        notes += [made.doubt] * bool(made.doubt)
    galleries = []
    section = replace(section, analyses=tuple(analyses))
    views = section.views(next(iter(section.rankings)))
    for kind in (False, True):
        best = next((each for each in views if each.run.is_cfar is kind), None)
        if best is not None and config.report.pictures:
            gallery, faults = _gallery(best, truth, config)
            galleries.append(gallery)
            notes += faults
    seen = {each.run.name: section.seen[each.run.name] for each in analyses}
    flattered = ", ".join(f"{name} ({count})" for name, count in seen.items() if count)
    if flattered:
        notes.append(
            f"Learnt from images that they are measured on, which flatters them: {flattered}."
        )
    kept = tuple(dict.fromkeys(notes))
    return replace(section, galleries=tuple(galleries), notes=kept)


def _to_look_into(section: Section, config: Config) -> list[Run]:
    """Return the best run of the best settings; of the best network and CFAR on every footing."""
    metric = config.evaluation.metric
    rankings = [
        [each for each in settings if each.spread(footing.of(metric)) is not None]
        for footing, settings in list(section.rankings.items())[::-1]
    ]
    chosen = rankings[0][: config.report.runs]
    for ranking in rankings:
        for kind in (True, False):
            best = next((each for each in ranking if each.is_cfar is kind), None)
            is_there = any(each.is_cfar is kind for each in chosen) and not section.is_mixed
            if best is not None and best not in chosen and not is_there:
                chosen.append(best)
    return [each.best for each in chosen]


def _analysis(
    run: Run, truth: Truth, footings: Sequence[Footing], config: Config
) -> Analysis | str:
    try:
        typed = from_plain(run.config, origin=str(run.folder), defaults=config)
        return analyse(
            run, truth, typed.evaluation, footings=footings,
            part=config.report.part.value, edges_px=config.report.sizes_px,
        )  # fmt: skip
    except (SarError, OSError, ValueError) as error:
        return f"No curve, sizes and pictures for {run.name}: {error}"


def _gallery(view: Measured, truth: Truth, config: Config) -> tuple[Gallery, Sequence[str]]:
    count = config.report.pictures
    found = cases(view, truth)
    radiometry = Radiometry.from_config(from_plain(view.run.config, defaults=config).radiometry)
    wanted = {
        MISS: found[MISS][:count],
        FALSE: found[FALSE][:count],
        HIT: spread_evenly(found[HIT], count),
    }
    crops, faults = {}, []
    for kind, chosen in wanted.items():
        crops[kind], broken = crops_of(chosen, view, radiometry)
        faults += [f"No picture: {each}" for each in broken]
    counts = {kind: len(each) for kind, each in found.items()}
    return Gallery(view, crops, counts), faults

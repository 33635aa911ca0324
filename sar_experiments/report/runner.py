"""FRONT DOOR report(): figures and tables from run folders; reads files, imports no torch."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sar_experiments.config import from_plain
from sar_experiments.data.radiometry import Radiometry
from sar_experiments.errors import SarError
from sar_experiments.report.analysis import FALSE, HIT, MISS, analyse, cases, spread_evenly
from sar_experiments.report.comparison import Gallery, Section
from sar_experiments.report.crops import crops_of
from sar_experiments.report.numbers import grouped, numbers_of
from sar_experiments.report.runs import find_runs, told_apart
from sar_experiments.report.truth import Truth, Truths, pixel_of_cfar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sar_experiments.config import Config
    from sar_experiments.report.analysis import Analysis
    from sar_experiments.report.numbers import Setting
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
        _section(_name(index, len(ordered)), by_data[key], read[key], seen, config)
        for index, key in enumerate(ordered)
    ]
    total = sum(len(_to_look_into(s.settings, config)) for s in sections if s.truth is not None)
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
    runs: Sequence[Run],
    truth: Truth | str,
    seen: Mapping[str, int | None],
    config: Config,
) -> Section:
    metric, part = config.evaluation.metric, config.report.part.value
    known = truth if isinstance(truth, Truth) else None
    if known is not None and known.pixel is None:
        known = replace(known, pixel=pixel_of_cfar(runs))
    prefix = "" if part == "val" else f"{part}/"
    runs = told_apart(runs)
    values = {run.name: numbers_of(run, known, prefix=prefix) for run in runs}
    settings = tuple(grouped(runs, values, metric=metric))
    if known is None:
        about = f"{runs[0].name} and {len(runs) - 1} more" if len(runs) > 1 else runs[0].name
        why = f"No curves, sizes and pictures for {about}: {truth}"
        return Section(name, None, settings, (), (), seen, (why,))
    notes: tuple[str, ...] = ()
    if known.missing:
        notes = (f"{known.missing} image files are not there: {known.part.images}",)
    return Section(name, known, settings, (), (), seen, notes)


def _detailed(section: Section, config: Config, on_run: Callable[[], None]) -> Section:
    """Return a section with curves and pictures, where its truth is known."""
    truth, notes = section.truth, list(section.notes)
    if truth is None:
        return section
    analyses = []
    for run in _to_look_into(section.settings, config):
        made = _analysis(run, truth, config)
        on_run()
        if isinstance(made, str):
            notes.append(made)
            continue
        analyses.append(made)
        notes += [made.doubt] * bool(made.doubt)
    galleries = []
    for kind in (False, True):
        best = next((each for each in analyses if each.run.is_cfar is kind), None)
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
    return replace(section, analyses=tuple(analyses), galleries=tuple(galleries), notes=kept)


def _to_look_into(settings: Sequence[Setting], config: Config) -> list[Run]:
    """Return the best run of the best settings, and of the best CFAR."""
    count, metric = config.report.runs, config.evaluation.metric
    with_metric = [each for each in settings if each.spread(metric) is not None]
    chosen = with_metric[:count]
    if not any(each.is_cfar for each in chosen):
        chosen += [each for each in with_metric[count:] if each.is_cfar][:1]
    if all(each.is_cfar for each in chosen):
        chosen += [each for each in with_metric[count:] if not each.is_cfar][:1]
    return [each.best for each in chosen]


def _analysis(run: Run, truth: Truth, config: Config) -> Analysis | str:
    try:
        typed = from_plain(run.config, origin=str(run.folder), defaults=config)
        return analyse(
            run, truth, typed.evaluation,
            part=config.report.part.value, edges_px=config.report.sizes_px,
        )  # fmt: skip
    except (SarError, OSError, ValueError) as error:
        return f"No curve, sizes and pictures for {run.name}: {error}"


def _gallery(analysis: Analysis, truth: Truth, config: Config) -> tuple[Gallery, Sequence[str]]:
    count = config.report.pictures
    found = cases(analysis, truth)
    radiometry = Radiometry.from_config(from_plain(analysis.run.config, defaults=config).radiometry)
    wanted = {
        MISS: found[MISS][:count],
        FALSE: found[FALSE][:count],
        HIT: spread_evenly(found[HIT], count),
    }
    crops, faults = {}, []
    for kind, chosen in wanted.items():
        crops[kind], broken = crops_of(chosen, analysis, radiometry)
        faults += [f"No picture: {each}" for each in broken]
    counts = {kind: len(each) for kind, each in found.items()}
    return Gallery(analysis, crops, counts), faults

"""Numbers of runs, counted again from what result.json holds, and averaged over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from sar_experiments.run_folder import ANY_CLASS
from sar_experiments.standings import Standing, finite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sar_experiments.report.runs import Run
    from sar_experiments.report.truth import Truth

RECORDED = ("AP", "AP50", "AP75", "precision", "recall", "f1")
AT_THRESHOLDS = ("precision", "recall", "f1")
COUNTED = (
    "hits", "misses", "false_alarms", "false_alarms_per_image", "false_alarms_per_km2",
)  # fmt: skip
NUMBERS = (*RECORDED, *COUNTED)
_THRESHOLDS = ("threshold", f"threshold{ANY_CLASS}")
_WHOLE = 1e-3  # how far a count that is computed back may lie from a whole number
_SIGMAS = 1.96  # 95 % of a normal distribution


class Footing(Enum):
    """What a detection has to get right, besides the place, to hit an object.

    A detector that names no classes can be compared class-agnostic only, and with others that are
    measured in the same way; numbers of different footings say nothing about each other.
    """

    per_class = ""
    class_agnostic = ANY_CLASS

    def of(self, name: str) -> str:
        """Return the name of a number on this footing."""
        return f"{name}{self.value}"

    @property
    def words(self) -> str:
        """Return what it is called in sentences and headings."""
        return "per class" if self is Footing.per_class else "class-agnostic"


@dataclass(frozen=True)
class Spread:
    """A number over seeds.

    Attributes:
        mean: Over the runs that have it.
        deviation: Of a sample; None for a single run.
        count: Runs.
    """

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs that differ in the seed alone, best first.

    Attributes:
        runs: One per seed, the latest of each.
        repeats: Older runs of a seed that is there already, and evaluations of a run that gave the
            same again; they say nothing about the spread.
        values: Run name -> its numbers.
        others: Runs of seeds that did not complete, the latest of each.
    """

    runs: tuple[Run, ...]
    repeats: tuple[Run, ...]
    values: Mapping[str, Mapping[str, float | None]]
    others: tuple[Run, ...] = ()

    @property
    def best(self) -> Run:
        """Return the best run."""
        return self.runs[0]

    @property
    def is_cfar(self) -> bool:
        """Tell whether it is the classic detector."""
        return self.best.is_cfar

    @property
    def names_classes(self) -> bool:
        """Whether its detector names classes."""
        return self.best.names_classes

    def spread(self, name: str) -> Spread | None:
        """Return a number over the seeds; None where no run has it."""
        standing = self.standing(name)
        if standing.mean is None:
            return None
        return Spread(standing.mean, standing.deviation, standing.n)

    def standing(self, metric: str) -> Standing:
        """Return what its seeds gave, those that did not complete included."""
        measured = [(self.values[run.name].get(metric), run) for run in self.runs]
        told = [
            (replace(run.result, metrics={metric: value}), run.state) for value, run in measured
        ]
        return Standing.of([*told, *((run.result, run.state) for run in self.others)], metric)


def numbers_of(
    run: Run,
    truth: Truth | None,
    *,
    prefix: str,
    several: bool = False,
    again: Mapping[str, float | None] | None = None,
) -> dict[str, float | None]:
    """Return the numbers of a run: as recorded, and counts where the truth is known.

    Names of class-agnostic numbers end in ANY_CLASS; for one class they equal the others.
    ``threshold/CLASS`` is the score from which detections of a class count, ``threshold`` that of
    all classes of a run by an older version.

    Args:
        run: With a result.
        truth: What it was measured on; None leaves the counts out.
        prefix: Of the names in result.json: ``test/``, or nothing for validation.
        several: Whether there are several classes.
        again: Recorded names -> values that an older version did not record.
    """
    metrics = {**run.result.metrics, **(again or {})}
    found = {k: v for k, v in metrics.items() if k.split("/")[0] in _THRESHOLDS}
    is_named = run.names_classes or not several
    by_class = {name: metrics.get(f"{prefix}{name}") if is_named else None for name in RECORDED}
    if chose_on_test(run, prefix):
        by_class |= dict.fromkeys(AT_THRESHOLDS)
    any_class = by_class
    if several:
        any_class = {n: metrics.get(f"{prefix}{Footing.class_agnostic.of(n)}") for n in RECORDED}
    for footing, values in ((Footing.per_class, by_class), (Footing.class_agnostic, any_class)):
        counted = _counted(values["precision"], values["recall"], truth)
        found |= {footing.of(name): value for name, value in {**values, **counted}.items()}
    return found


def _counted(
    precision: float | None, recall: float | None, truth: Truth | None
) -> dict[str, float | None]:
    counts = None if truth is None else _counts(precision, recall, truth.objects)
    if truth is None or counts is None:
        return dict.fromkeys(COUNTED)
    hits, false_alarms = counts
    images, area_km2 = len(truth.part.samples), truth.area_km2
    return {
        "hits": float(hits),
        "misses": float(truth.objects - hits),
        "false_alarms": float(false_alarms),
        "false_alarms_per_image": false_alarms / images if images else None,
        "false_alarms_per_km2": false_alarms / area_km2 if area_km2 else None,
    }


def have_several_classes(runs: Sequence[Run], truth: Truth | None) -> bool:
    """Whether runs were measured on several classes, as the truth says or what they recorded."""
    if truth is not None:
        return len(truth.part.classes) > 1
    return any(
        name.startswith("AP/") or name.endswith(ANY_CLASS)
        for run in runs
        for name in run.result.metrics
    )


def chose_on_test(run: Run, prefix: str) -> bool:
    """Tell whether a run by an older version chose its threshold on the test split itself."""
    return bool(prefix) and f"{prefix}threshold" in run.result.metrics


def _counts(precision: float | None, recall: float | None, objects: int) -> tuple[int, int] | None:
    """Return hits and false alarms; None where precision and recall are not of so many objects."""
    if precision is None or recall is None or not precision:
        return (0, 0) if precision is None and recall == 0 else None
    hits = recall * objects
    found = hits / precision
    if max(abs(hits - round(hits)), abs(found - round(found))) > _WHOLE:
        return None
    return round(hits), round(found) - round(hits)


def grouped(
    runs: Sequence[Run],
    values: Mapping[str, Mapping[str, float | None]],
    *,
    metric: str,
    others: Sequence[Run] = (),
) -> list[Setting]:
    """Return the settings, best first; one that lost a seed is below all that lost none.

    Those that name no classes, where there are several, come after all that do.

    Args:
        runs: On the same data.
        values: Run name -> its numbers.
        metric: Larger is better.
        others: Runs that did not complete, of whatever setting.
    """
    trained = {run.folder.resolve(): run for run in runs if run.result.task == "train"}
    again: dict[str, list[Run]] = {}
    by_setting: dict[str, list[Run]] = {}
    for run in runs:
        first = run.repeated(trained)
        if first is None:
            by_setting.setdefault(run.setting, []).append(run)
        else:
            again.setdefault(first.setting, []).append(run)
    settings = [
        _setting(each, again.get(key, []), values, metric, [r for r in others if r.setting == key])
        for key, each in by_setting.items()
    ]
    settings.sort(key=lambda setting: setting.standing(Footing.class_agnostic.of(metric)).place())
    return sorted(settings, key=lambda setting: setting.standing(metric).place())


def _setting(
    runs: Sequence[Run],
    again: Sequence[Run],
    values: Mapping[str, Mapping[str, float | None]],
    metric: str,
    others: Sequence[Run],
) -> Setting:
    latest: dict[object, Run] = {}
    repeats = list(again)
    for run in sorted(runs, key=lambda each: each.result.ended):
        if (earlier := latest.get(_seed(run))) is not None:
            repeats.append(earlier)
        latest[_seed(run)] = run
    lost = {
        _seed(run): run
        for run in sorted(others, key=lambda each: each.result.started)
        if _seed(run) not in latest
    }

    def order(run: Run) -> list[float]:
        own = [finite(values[run.name].get(footing.of(metric))) for footing in Footing]
        return [math.inf if value is None else -value for value in own]

    best_first = tuple(sorted(latest.values(), key=order))
    return Setting(best_first, tuple(repeats), values, tuple(lost.values()))


def _seed(run: Run) -> object:
    return run.name if run.seed is None else run.seed


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of ``total``, which is above 0, by Wilson's score (1927).

    Unlike a mean plus or minus two deviations it stays in [0, 1] and means something for few.
    """
    share, squared = hits / total, _SIGMAS**2
    middle = (share + squared / (2 * total)) / (1 + squared / total)
    half = math.sqrt(share * (1 - share) / total + squared / (4 * total**2))
    half *= _SIGMAS / (1 + squared / total)
    return max(0.0, middle - half), min(1.0, middle + half)

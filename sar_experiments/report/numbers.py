"""Numbers of runs, counted again from what result.json holds, and averaged over seeds."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sar_experiments.report.runs import Run
    from sar_experiments.report.truth import Truth

RECORDED = ("AP", "AP50", "AP75", "precision", "recall", "f1", "threshold")
COUNTED = (
    "hits", "misses", "false_alarms", "false_alarms_per_image", "false_alarms_per_km2",
)  # fmt: skip
_WHOLE = 1e-3  # how far a count that is computed back may lie from a whole number
_SIGMAS = 1.96  # 95 % of a normal distribution


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
    """

    runs: tuple[Run, ...]
    repeats: tuple[Run, ...]
    values: Mapping[str, Mapping[str, float | None]]

    @property
    def best(self) -> Run:
        """Return the best run."""
        return self.runs[0]

    @property
    def is_cfar(self) -> bool:
        """Tell whether it is the classic detector."""
        return self.best.is_cfar

    def spread(self, name: str) -> Spread | None:
        """Return a number over the seeds; None where no run has it."""
        found = [self.values[run.name].get(name) for run in self.runs]
        present = [value for value in found if value is not None]
        if not present:
            return None
        deviation = statistics.stdev(present) if len(present) > 1 else None
        return Spread(statistics.fmean(present), deviation, len(present))


def numbers_of(run: Run, truth: Truth | None, *, prefix: str) -> dict[str, float | None]:
    """Return the numbers of a run: as recorded, and counts where the truth is known.

    Args:
        run: With a result.
        truth: What it was measured on; None leaves the counts out.
        prefix: Of the names in result.json: ``test/``, or nothing for validation.
    """
    metrics = run.result.metrics
    found: dict[str, float | None] = {name: metrics.get(f"{prefix}{name}") for name in RECORDED}
    found |= dict.fromkeys(COUNTED)
    if truth is None:
        return found
    counts = _counts(found["precision"], found["recall"], truth.objects)
    if counts is None:
        return found
    hits, false_alarms = counts
    images, area_km2 = len(truth.part.samples), truth.area_km2
    return found | {
        "hits": float(hits),
        "misses": float(truth.objects - hits),
        "false_alarms": float(false_alarms),
        "false_alarms_per_image": false_alarms / images if images else None,
        "false_alarms_per_km2": false_alarms / area_km2 if area_km2 else None,
    }


def _counts(precision: float | None, recall: float | None, objects: int) -> tuple[int, int] | None:
    """Return hits and false alarms; None where precision and recall are not of so many objects."""
    if precision is None or recall is None or not precision:
        return (0, 0) if precision is None and not recall else None
    hits = recall * objects
    found = hits / precision
    if max(abs(hits - round(hits)), abs(found - round(found))) > _WHOLE:
        return None
    return round(hits), round(found) - round(hits)


def grouped(
    runs: Sequence[Run], values: Mapping[str, Mapping[str, float | None]], *, metric: str
) -> list[Setting]:
    """Return the settings, best mean first; those without the metric last.

    Args:
        runs: On the same data.
        values: Run name -> its numbers.
        metric: Larger is better.
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
        _setting(each, again.get(key, []), values, metric) for key, each in by_setting.items()
    ]

    def order(setting: Setting) -> float:
        spread = setting.spread(metric)
        return math.inf if spread is None else -spread.mean

    return sorted(settings, key=order)


def _setting(
    runs: Sequence[Run],
    again: Sequence[Run],
    values: Mapping[str, Mapping[str, float | None]],
    metric: str,
) -> Setting:
    latest: dict[object, Run] = {}
    repeats = list(again)
    for run in sorted(runs, key=lambda each: each.result.ended):
        seed = run.name if run.seed is None else run.seed
        if seed in latest:
            repeats.append(latest[seed])
        latest[seed] = run

    def order(run: Run) -> float:
        value = values[run.name].get(metric)
        return math.inf if value is None else -value

    return Setting(tuple(sorted(latest.values(), key=order)), tuple(repeats), values)


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of ``total``, which is above 0, by Wilson's score (1927).

    Unlike a mean plus or minus two deviations it stays in [0, 1] and means something for few.
    """
    share, squared = hits / total, _SIGMAS**2
    middle = (share + squared / (2 * total)) / (1 + squared / total)
    half = math.sqrt(share * (1 - share) / total + squared / (4 * total**2))
    half *= _SIGMAS / (1 + squared / total)
    return max(0.0, middle - half), min(1.0, middle + half)

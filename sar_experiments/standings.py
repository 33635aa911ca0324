"""Which setting is best: the mean over its seeds, and seeds that gave no number count against it.

Seeds do not diverge, run out of memory or get pruned by chance: what is left of a setting that
loses some is better than the setting is. It therefore stands below every setting that lost none.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sar_experiments.run_folder import ANY_CLASS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sar_experiments.run_folder import Result

UNFINISHED = ("running", "stalled")
"""States of runs that may still give a number."""


@dataclass(frozen=True)
class Standing:
    """What the seeds of one setting gave.

    Attributes:
        values: The metric of each seed that finished.
        failed: How seeds ended that gave no number, such as ``diverged`` -> how many.
        running: Seeds that may still give one.
    """

    values: tuple[float, ...] = ()
    failed: Mapping[str, int] = field(default_factory=dict)
    running: int = 0

    @classmethod
    def of(cls, results: Iterable[tuple[Result, str]], metric: str) -> Standing:
        """Return the standing of runs of one setting, one per seed.

        Args:
            results: The result of each, and its state: its status, or ``stalled`` or ``dead``.
            metric: Larger is better.
        """
        values, ends, running = [], [], 0
        for result, state in results:
            value = finite(result.metrics.get(metric))
            if state in UNFINISHED:
                running += 1
            elif state == "completed" and value is not None:
                values.append(value)
            else:
                ends.append(end_of(result, state) or f"without {metric}")
        return cls(tuple(values), dict(sorted(Counter(ends).items())), running)

    @property
    def n(self) -> int:
        """Return how many seeds finished."""
        return len(self.values)

    @property
    def mean(self) -> float | None:
        """Return the mean over the seeds that finished; None where none did."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Return the standard deviation of a sample; None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def all_finished(self) -> bool:
        """Whether there is a mean, and none of the seeds that ended is missing in it."""
        return bool(self.values) and not self.failed

    @property
    def failures(self) -> str:
        """Return how many seeds failed how, for people; empty where none did."""
        return ", ".join(f"{count} {end}" for end, count in self.failed.items())

    def place(self) -> tuple[int, float, int, float]:
        """Return a key that sorts the best setting first; of equal means that of more seeds."""
        if self.mean is None:
            return (2, 0.0, 0, 0.0)
        tier = 0 if self.all_finished else 1
        deviation = math.inf if self.deviation is None else self.deviation
        return (tier, -self.mean, -self.n, deviation)


def shared_metric(results: Iterable[Result], metric: str) -> str:
    """Return the name of a metric by which runs can be compared.

    Where one of them names no classes, that is the class-agnostic one, which all have.
    """
    agnostic = f"{metric}{ANY_CLASS}"
    is_needed = any(not each.names_classes and agnostic in each.metrics for each in results)
    return agnostic if is_needed else metric


def finite(value: object) -> float | None:
    """Return a metric as a number; None for one that is missing, NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def end_of(result: Result, state: str) -> str:
    """Return how a run ended that did not complete, in a word; empty where it completed."""
    if state == "completed":
        return ""
    return "out of memory" if state == "failed" and result.cause == "oom" else state

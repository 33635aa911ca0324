"""What a sweep found so far: summary.csv, summary.md and the leaderboard of its console.

Reads result.json of every run, so it tells the truth after a crash, a kill or half a sweep.
Written by each job at its end: Hydra's own end-of-sweep event does not come when a job failed.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sar_experiments import run_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

CSV, MARKDOWN = "summary.csv", "summary.md"
SEED = "seed"
BOARD_ROWS = 12  # shown after every job; the files hold all


@dataclass(frozen=True)
class Row:
    """One run of a sweep.

    Attributes:
        job: Name of its folder.
        result: Its result.json.
        changes: Key -> value of the overrides that not all runs share.
    """

    job: str
    result: run_folder.Result
    changes: dict[str, str]


def write_summary(sweep: Path, *, metric: str) -> str:
    """Write both files anew and return the leaderboard, best run first.

    Args:
        sweep: Folder that holds the run folders.
        metric: What the order follows; larger is better.
    """
    lock = os.open(sweep, os.O_RDONLY | os.O_CLOEXEC)
    try:  # jobs that end together take turns
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = read_rows(sweep, metric=metric)
        board = leaderboard(rows, metric=metric)
        run_folder.write_atomically(sweep / CSV, _csv(rows))
        run_folder.write_atomically(sweep / MARKDOWN, _markdown(sweep.name, rows, metric))
    finally:
        os.close(lock)
    return board


def read_rows(sweep: Path, *, metric: str) -> list[Row]:
    """Return the runs of a sweep, best first; those without the metric last."""
    found = [(path.parent.name, run_folder.read_result(path.parent)) for path in _results(sweep)]
    return rows_of({job: result for job, result in found if result is not None}, metric=metric)


def rows_of(results: Mapping[str, run_folder.Result], *, metric: str) -> list[Row]:
    """Return runs by name as rows, best first; those without the metric last."""
    overrides = {job: _as_mapping(result.overrides) for job, result in results.items()}
    first = next(iter(overrides.values()), {})
    shared = {
        key for key, value in first.items() if all(o.get(key) == value for o in overrides.values())
    }
    rows = [
        Row(job, result, {k: v for k, v in overrides[job].items() if k not in shared})
        for job, result in results.items()
    ]
    return sorted(rows, key=lambda row: (-_metric(row, metric), row.job))


def leaderboard(rows: Sequence[Row], *, metric: str) -> str:
    """Return a table for a terminal: metric, status, seconds, job, what it changed."""
    lines = [f"{metric:>8}  {'status':<11}  {'seconds':>8}  job"]
    lines += [
        f"{_number(row.result.metrics.get(metric)):>8}  {row.result.status:<11}"
        f"  {row.result.seconds:>8.0f}  {row.job}  {_text(row.changes)}".rstrip()
        for row in rows[:BOARD_ROWS]
    ]
    if len(rows) > BOARD_ROWS:
        lines.append(f"{len(rows) - BOARD_ROWS} more in {MARKDOWN}")
    return "\n".join(lines)


def over_seeds(rows: Sequence[Row], *, metric: str) -> list[tuple[str, float, float, int]]:
    """Return setting, mean, standard deviation and number of the runs that differ by seed alone.

    Only completed runs count; the deviation is that of a sample, 0 for a single run. Best first.
    """
    groups: dict[str, list[float]] = {}
    for row in rows:
        value = row.result.metrics.get(metric)
        if row.result.status == "completed" and value is not None:
            setting = _text({k: v for k, v in row.changes.items() if k != SEED}) or "all alike"
            groups.setdefault(setting, []).append(value)
    found = [
        (setting, statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else 0.0, len(v))
        for setting, v in groups.items()
    ]
    return sorted(found, key=lambda each: -each[1])


def _results(sweep: Path) -> Iterator[Path]:
    yield from sorted(sweep.glob(f"*/{run_folder.RESULT}"))


def _as_mapping(overrides: Sequence[str]) -> dict[str, str]:
    pairs = (each.lstrip("+").partition("=") for each in overrides)
    return {key: value for key, _, value in pairs}


def _metric(row: Row, metric: str) -> float:
    value = row.result.metrics.get(metric)
    return float("-inf") if value is None else value


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _text(changes: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in changes.items())


def _csv(rows: Sequence[Row]) -> str:
    changed = list(dict.fromkeys(key for row in rows for key in row.changes))
    metrics = list(dict.fromkeys(name for row in rows for name in row.result.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["job", "status", *changed, *metrics, "seconds", "gpus", "why"])
    for row in rows:
        result = row.result
        writer.writerow(
            [row.job, result.status]
            + [row.changes.get(key, "") for key in changed]
            + [result.metrics.get(name) for name in metrics]
            + [result.seconds, "+".join(result.gpus), result.why]
        )
    return text.getvalue()


def _markdown(name: str, rows: Sequence[Row], metric: str) -> str:
    lines = [f"# {name}", "", f"| {metric} | status | seconds | GPU | job | changes | why |"]
    lines.append("| --: | --- | --: | --- | --- | --- | --- |")
    for row in rows:
        result = row.result
        cells = [_number(result.metrics.get(metric)), result.status, f"{result.seconds:.0f}"]
        cells += ["+".join(result.gpus) or "CPU", row.job, f"`{_text(row.changes)}`"]
        cells.append(result.why.replace("|", "/"))
        lines.append(f"| {' | '.join(cells)} |")
    groups = over_seeds(rows, metric=metric)
    if any(count > 1 for *_, count in groups):
        lines += ["", f"| setting | {metric} mean | standard deviation | n |"]
        lines.append("| --- | --: | --: | --: |")
        lines += [f"| `{s}` | {mean:.4f} | {std:.4f} | {n} |" for s, mean, std, n in groups]
    return "\n".join(lines) + "\n"

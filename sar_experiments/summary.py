"""What a sweep found so far: summary.csv, summary.md and the leaderboard of its console.

Reads result.json of every run, so it tells the truth after a crash, a kill or half a sweep.
Written by each job at its end: Hydra's own end-of-sweep event does not come when a job failed.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sar_experiments import run_folder
from sar_experiments.standings import Standing, finite, shared_metric

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
        seed: As the command line or config.yaml says; empty where neither does.
    """

    job: str
    result: run_folder.Result
    changes: dict[str, str]
    seed: str = ""

    @property
    def setting(self) -> str:
        """Return what it shares with runs that differ in the seed alone."""
        return _text({k: v for k, v in self.changes.items() if k != SEED})


@dataclass(frozen=True)
class SettingRow:
    """Runs that differ in the seed alone.

    Attributes:
        setting: What they changed; empty where all runs of the sweep are alike.
        rows: Best first.
        standing: What they gave.
    """

    setting: str
    rows: tuple[Row, ...]
    standing: Standing


def write_summary(sweep: Path, *, metric: str) -> str:
    """Write both files anew and return the leaderboard, best setting first.

    Args:
        sweep: Folder that holds the run folders.
        metric: What the order follows; larger is better. Where a run names no classes, all are
            ordered by the class-agnostic one.
    """
    lock = os.open(sweep, os.O_RDONLY | os.O_CLOEXEC)
    try:  # jobs that end together take turns
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = read_rows(sweep)
        metric = shared_metric([row.result for row in rows], metric)
        settings = over_seeds(rows, metric=metric)
        board = leaderboard(settings, metric=metric)
        run_folder.write_atomically(sweep / CSV, _csv(settings, metric))
        run_folder.write_atomically(sweep / MARKDOWN, _markdown(sweep.name, settings, metric))
    finally:
        os.close(lock)
    return board


def read_rows(sweep: Path) -> list[Row]:
    """Return the runs of a sweep by name."""
    found = [(path.parent, run_folder.read_result(path.parent)) for path in _results(sweep)]
    results = {folder.name: result for folder, result in found if result is not None}
    rows = rows_of(results)
    return [row if row.seed else replace(row, seed=_seed(sweep / row.job)) for row in rows]


def rows_of(results: Mapping[str, run_folder.Result]) -> list[Row]:
    """Return runs by name as rows, in the order of the names."""
    overrides = {job: _as_mapping(result.overrides) for job, result in results.items()}
    first = next(iter(overrides.values()), {})
    shared = {
        key for key, value in first.items() if all(o.get(key) == value for o in overrides.values())
    }
    return [
        Row(
            job,
            result,
            {k: v for k, v in overrides[job].items() if k not in shared},
            overrides[job].get(SEED, ""),
        )
        for job, result in sorted(results.items())
    ]


def over_seeds(rows: Sequence[Row], *, metric: str) -> list[SettingRow]:
    """Return the settings of runs, best first; one that lost a seed is below all that lost none."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.setting, []).append(row)

    def order(row: Row) -> tuple[bool, float]:
        value = finite(row.result.metrics.get(metric))
        has_finished = row.result.status == "completed" and value is not None
        return not has_finished, -(value or 0.0)

    found = [
        SettingRow(
            setting,
            tuple(sorted(group, key=order)),
            Standing.of([(row.result, row.result.status) for row in group], metric),
        )
        for setting, group in groups.items()
    ]
    return sorted(found, key=lambda each: each.standing.place())


def leaderboard(settings: Sequence[SettingRow], *, metric: str) -> str:
    """Return a table for a terminal: mean, deviation, seeds, best job, what it changed."""
    failed = max([len("failed"), *(len(each.standing.failures) for each in settings)])
    running = any(each.standing.running for each in settings)
    head = f"{metric:>8}  {'±':>6}  {'n':>2}  {'failed':<{failed}}"
    lines = [f"{head}{'  running' * running}  job"]
    for each in settings[:BOARD_ROWS]:
        standing, job = each.standing, each.rows[0].job
        cells = [
            f"{_number(standing.mean):>8}", f"{_number(standing.deviation):>6}",
            f"{standing.n:>2}", f"{standing.failures or '-':<{failed}}",
            *([f"{standing.running or '-':>7}"] if running else []), job, each.setting,
        ]  # fmt: skip
        lines.append("  ".join(cells).rstrip())
    if len(settings) > BOARD_ROWS:
        lines.append(f"{len(settings) - BOARD_ROWS} more in {MARKDOWN}")
    return "\n".join(lines)


def _results(sweep: Path) -> Iterator[Path]:
    yield from sorted(sweep.glob(f"*/{run_folder.RESULT}"))


def _seed(folder: Path) -> str:
    """Find the seed in config.yaml, without parsing the whole of it."""
    try:
        text = (folder / run_folder.CONFIG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(rf"^{SEED}: (\d+)$", text, re.MULTILINE)
    return match[1] if match else ""


def _as_mapping(overrides: Sequence[str]) -> dict[str, str]:
    pairs = (each.lstrip("+").partition("=") for each in overrides)
    return {key: value for key, _, value in pairs}


def _number(value: object) -> str:
    number = finite(value)
    return "-" if number is None else f"{number:.4f}"


def _text(changes: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in changes.items())


def _csv(settings: Sequence[SettingRow], metric: str) -> str:
    rows = [(each.standing, row) for each in settings for row in each.rows]
    changed = list(dict.fromkeys(key for _, row in rows for key in row.changes if key != SEED))
    metrics = list(dict.fromkeys(name for _, row in rows for name in row.result.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    over = [f"{metric}_mean", f"{metric}_std", "n", "failed", "failures"]
    writer.writerow(["job", "status", *changed, SEED, *metrics, *over, "seconds", "gpus", "why"])
    for standing, row in rows:
        result = row.result
        writer.writerow(
            [row.job, result.status]
            + [row.changes.get(key, "") for key in changed]
            + [row.seed]
            + [finite(result.metrics.get(name)) for name in metrics]
            + [standing.mean, standing.deviation, standing.n]
            + [sum(standing.failed.values()), standing.failures]
            + [result.seconds, "+".join(result.gpus), result.why]
        )
    return text.getvalue()


def _markdown(name: str, settings: Sequence[SettingRow], metric: str) -> str:
    lines = [f"# {name}"]
    if any(len(each.rows) > 1 for each in settings):
        lines += ["", f"| setting | {metric} mean | standard deviation | n | failed |"]
        lines.append("| --- | --: | --: | --: | --- |")
        for each in settings:
            standing = each.standing
            cells = [f"`{each.setting or 'all alike'}`", _number(standing.mean)]
            cells += [_number(standing.deviation), str(standing.n), standing.failures or "-"]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"| {metric} | status | n | failed | seconds | GPU | job | changes | why |"]
    lines.append("| --: | --- | --: | --- | --: | --- | --- | --- | --- |")
    for each in settings:
        for row in each.rows:
            result = row.result
            cells = [_number(result.metrics.get(metric)), result.status, str(each.standing.n)]
            cells += [each.standing.failures or "-", f"{result.seconds:.0f}"]
            cells += ["+".join(result.gpus) or "CPU", row.job, f"`{_text(row.changes)}`"]
            cells.append(" ".join(result.why.replace("|", "/").split()))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"

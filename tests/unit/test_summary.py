"""A sweep's summary is ordered by the metric, shows what changed, and averages over seeds."""

import csv

import pytest

from sar_experiments import run_folder
from sar_experiments.summary import leaderboard, over_seeds, read_rows, write_summary


@pytest.fixture
def sweep(tmp_path):
    def run(job, *overrides, ap50=None, status="completed", why=""):
        folder = tmp_path / job
        folder.mkdir()
        result = run_folder.Result(
            status=status,
            task="train",
            why=why,
            metrics={} if ap50 is None else {"AP50": ap50},
            overrides=["usecase=ships", *overrides],
            seconds=12.3,
        )
        run_folder.write_result(folder, result)

    run("0_ships", "solver.base_lr=0.1", "seed=1", ap50=0.4)
    run("1_ships", "solver.base_lr=0.1", "seed=2", ap50=0.6)
    run("2_ships", "solver.base_lr=0.2", "seed=1", ap50=0.7)
    run("3_ships", "solver.base_lr=9", "seed=1", status="diverged", why="the loss | exploded")
    return tmp_path


def test_the_best_run_comes_first_and_failures_last(sweep):
    rows = read_rows(sweep, metric="AP50")
    assert [row.job for row in rows] == ["2_ships", "1_ships", "0_ships", "3_ships"]


def test_only_what_differs_is_shown(sweep):
    board = leaderboard(read_rows(sweep, metric="AP50"), metric="AP50")
    assert "usecase" not in board
    assert board.splitlines()[1].split() == [
        "0.7000", "completed", "12", "2_ships", "solver.base_lr=0.2", "seed=1",
    ]  # fmt: skip
    assert board.splitlines()[-1].split()[:2] == ["-", "diverged"]


def test_seeds_of_one_setting_are_averaged(sweep):
    best, second = over_seeds(read_rows(sweep, metric="AP50"), metric="AP50")
    assert best == ("solver.base_lr=0.2", 0.7, 0.0, 1)
    assert second[0] == "solver.base_lr=0.1"
    assert second[1:] == (pytest.approx(0.5), pytest.approx(0.1414, abs=1e-4), 2)


def test_the_files_hold_every_run(sweep):
    board = write_summary(sweep, metric="AP50")
    with (sweep / "summary.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["job"] for row in table] == ["2_ships", "1_ships", "0_ships", "3_ships"]
    assert table[0]["solver.base_lr"] == "0.2"
    assert table[3]["why"] == "the loss | exploded"
    markdown = (sweep / "summary.md").read_text()
    assert "| `solver.base_lr=0.1` | 0.5000 | 0.1414 | 2 |" in markdown
    assert "the loss / exploded" in markdown
    assert board.splitlines()[0].split()[0] == "AP50"


def test_a_run_that_goes_on_or_is_broken_does_no_harm(sweep):
    (sweep / "4_ships").mkdir()
    (sweep / "4_ships" / "result.json").write_text("{")
    assert len(read_rows(sweep, metric="AP50")) == 4


def test_an_empty_sweep_has_an_empty_table(tmp_path):
    assert len(write_summary(tmp_path, metric="AP").splitlines()) == 1


def test_a_long_leaderboard_is_cut_on_the_console_alone(tmp_path):
    for number in range(20):
        (tmp_path / f"{number}_ships").mkdir()
        result = run_folder.Result(status="completed", task="train", metrics={"AP50": 0.1})
        run_folder.write_result(tmp_path / f"{number}_ships", result)
    board = write_summary(tmp_path, metric="AP50").splitlines()
    assert len(board) == 14
    assert board[-1] == "8 more in summary.md"
    assert len((tmp_path / "summary.csv").read_text().splitlines()) == 21
